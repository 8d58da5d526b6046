"""A prepared folder whose files somebody else has written."""

import io
import json
import pathlib
import sys
import tempfile
from unittest import mock

from absl.testing import absltest, parameterized
from PIL import Image

from bitnet_jax import errors
from bitnet_jax.data.datasets import prepared, sources

_FILES = ('features.json', 'dataset_info.json')
_TFDS = 'tensorflow_datasets.core.features'


class UntrustedTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.directory = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
    file = io.BytesIO()
    Image.new('RGB', (6, 4), (200, 30, 60)).save(file, 'PNG')
    image = cls.directory / 'photos' / 'train' / 'cat' / 'a.png'
    image.parent.mkdir(parents=True)
    image.write_bytes(file.getvalue())
    cls.path = pathlib.Path(
      prepared.prepare(str(cls.directory / 'photos'), str(cls.directory / 'data'))
    )
    cls.whole = {name: (cls.path / name).read_text() for name in _FILES}
    cls.features, cls.info = (json.loads(cls.whole[name]) for name in _FILES)

  def setUp(self):
    super().setUp()
    for name in _FILES:
      self.write(name, self.whole[name])
    # What the data came with: a module that can be imported, for the current directory can.
    self.marker = pathlib.Path(self.create_tempfile().full_path)
    self.marker.unlink()
    module = self.directory / 'photos' / 'evil.py'
    module.write_text(f'import pathlib; pathlib.Path({str(self.marker)!r}).touch()\n')
    self.enterContext(mock.patch.object(sys, 'path', [str(self.directory), *sys.path]))
    self.addCleanup(sys.modules.pop, 'photos.evil', None)
    self.addCleanup(sys.modules.pop, 'photos', None)

  def write(self, name, content):
    text = content if isinstance(content, str) else json.dumps(content)
    (self.path / name).write_text(text)

  def refused(self, line):
    with self.assertRaisesRegex(errors.DataError, line):
      sources.check_there('folder', str(self.path))
    self.assertFalse(self.marker.exists())
    self.assertNotIn('photos.evil', sys.modules)

  def changed(self, **features):
    content = json.loads(json.dumps(self.features))
    content['featuresDict']['features'].update(features)
    return content

  def test_what_prepare_wrote_is_opened(self):
    self.assertLen(sources.open_source('folder', 'train', str(self.path)), 1)

  @parameterized.named_parameters(
    ('class', {'pythonClassName': 'photos.evil.X', 'text': {}}),
    ('class_of_json', {'pythonClassName': 'photos.evil.X', 'jsonFeature': {'json': '{}'}}),
    ('snake_case', {'python_class_name': 'photos.evil.X', 'text': {}}),
    ('legacy', {'type': 'photos.evil.X', 'content': {}}),
    (
      'inside_json',
      {
        'pythonClassName': f'{_TFDS}.features_dict.FeaturesDict',
        'jsonFeature': {'json': '{"a": {"type": "photos.evil.X", "content": {}}}'},
      },
    ),
    (
      'inside_a_sequence',
      {
        'pythonClassName': f'{_TFDS}.sequence_feature.Sequence',
        'sequence': {'feature': {'pythonClassName': 'photos.evil.X', 'text': {}}},
      },
    ),
  )
  def test_no_class_of_its_own_is_imported(self, feature):
    self.write('features.json', self.changed(extra=feature))
    self.refused("features.json: feature 'extra' is of class .*, not Image, ClassLabel or Text;")

  def test_nor_as_the_whole(self):
    self.write('features.json', self.features | {'pythonClassName': 'photos.evil.X'})
    self.refused('features.json: is no FeaturesDict')
    self.write('features.json', {'type': 'photos.evil.X', 'content': {}})
    self.refused('features.json: is no FeaturesDict')

  def test_nor_from_the_other_file(self):
    evil = {'pythonClassName': 'photos.evil.X', 'text': {}}
    self.write('dataset_info.json', self.info | {'features': self.changed(extra=evil)})
    self.refused("dataset_info.json: feature 'extra' is of class photos.evil.X")

  @parameterized.product(
    name=('features.json', 'dataset_info.json'),
    text=('', '{', '[]', 'null', '\x00', '[' * 100_000, '{"version": {}}', '{"splits": 1}'),
  )
  def test_broken_json(self, name, text):
    self.write(name, text)
    self.refused('file=')

  def test_without_features(self):
    (self.path / 'features.json').unlink()
    self.refused('features.json: cannot be read')

  @parameterized.parameters('image', 'label')
  def test_without_what_is_trained_on(self, name):
    content = self.changed()
    del content['featuresDict']['features'][name]
    self.write('features.json', content)
    self.refused(f"features.json: has no .* feature '{name}'")


if __name__ == '__main__':
  absltest.main()
