"""The manifest of a prepared data set notices what happened to the shards."""

import contextlib
import io
import json
import os
import pathlib
import shutil
import tempfile

from absl.testing import absltest, parameterized
from PIL import Image

from bitnet_jax import errors
from bitnet_jax.data.datasets import prepared, shard_manifest, sources
from bitnet_jax.runtime import files


class ShardsTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.whole = cls.enterClassContext(tempfile.TemporaryDirectory())
    prepared.prepare('digits', cls.whole)

  def setUp(self):
    super().setUp()
    self.data_dir = self.enterContext(tempfile.TemporaryDirectory())
    shutil.copytree(self.whole, self.data_dir, dirs_exist_ok=True)
    self.path = pathlib.Path(self.data_dir, 'digits', '1.0.0')
    [self.shard] = self.path.glob('digits-test.array_record*')

  def open(self, **options):
    return sources.open_source('digits', 'test', self.data_dir, **options)

  def test_holds_counts_sizes_and_hashes(self):
    content = json.loads((self.path / shard_manifest.NAME).read_text())
    self.assertEqual(content['splits'], {'train': 1437, 'test': 360})
    self.assertEqual(set(content['files']) | {shard_manifest.NAME}, set(os.listdir(self.path)))
    self.assertLen(content['files'], 4)
    entry = content['files'][self.shard.name]
    self.assertEqual(entry['bytes'], self.shard.stat().st_size)
    self.assertEqual(entry['sha256'], files.sha256(self.shard))

  def test_flipped_bit_is_found_when_asked_for(self):
    content = bytearray(self.shard.read_bytes())
    content[len(content) // 2] ^= 4
    self.shard.write_bytes(content)
    self.open()
    size = sum(path.stat().st_size for path in self.path.glob('*.array_record*'))
    self.open(hash_bytes=size - 1)
    with self.assertRaisesRegex(
      errors.DataError, f'file={self.shard}: has SHA-256 .*; remove the data set'
    ):
      self.open(hash_bytes=size)

  def test_asked_to_stop_it_reads_no_other_shard(self):
    [last] = self.path.glob('digits-train.array_record*')
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 4
    last.write_bytes(content)
    asked = []
    self.open(hash_bytes=1e9, stop=lambda: asked.append(None) or True)
    self.assertLen(asked, 1)
    with self.assertRaisesRegex(errors.DataError, f'file={last}: has SHA-256'):
      self.open(hash_bytes=1e9, stop=lambda: False)
    self.open(stop=self.fail)

  def test_other_size_is_always_found(self):
    with self.shard.open('ab') as file:
      file.write(b'x')
    with self.assertRaisesRegex(errors.DataError, r'has \d+ bytes, the manifest says'):
      self.open()

  def test_missing_shard(self):
    self.shard.unlink()
    with self.assertRaisesRegex(errors.DataError, f'file={self.shard}: is missing'):
      self.open()

  def test_shard_too_many(self):
    shutil.copy(self.shard, f'{self.shard}x')
    with self.assertRaisesRegex(errors.DataError, 'is not in the manifest'):
      self.open()

  def test_other_count(self):
    path = self.path / shard_manifest.NAME
    path.write_text(path.read_text().replace('360', '361'))
    with self.assertRaisesRegex(errors.DataError, 'test has 360 examples, the manifest says 361'):
      self.open()

  @parameterized.parameters(
    '',
    '{}',
    '[]',
    '[' * 100_000,
    '{"format": 2, "splits": {}, "files": {}}',
    '{"format": 1, "splits": {}, "files": []}',
    '{"format": 1, "splits": [], "files": {}}',
    '{"format": 1, "splits": {"test": "360"}, "files": {}}',
    '{"format": 1, "splits": {}, "files": {"a": []}}',
    '{"format": 1, "splits": {}, "files": {"a": {"bytes": Infinity, "sha256": ""}}}',
    '{"format": 1, "splits": {}, "files": {"a": {"bytes": 1}}}',
    '{"format": 1, "splits": {}, "files": {"../a": {"bytes": 1, "sha256": ""}}}',
  )
  def test_damaged_manifest(self, text):
    (self.path / shard_manifest.NAME).write_text(text)
    with self.assertRaisesRegex(errors.DataError, 'manifest=.*cannot be read .*; delete it and'):
      self.open()

  def test_preparing_again_writes_a_missing_manifest(self):
    before = (self.path / shard_manifest.NAME).read_text()
    (self.path / shard_manifest.NAME).unlink()
    with self.assertRaisesRegex(errors.DataError, 'manifest=.*no such file; run python -m'):
      self.open()
    prepared.prepare('digits', self.data_dir)
    self.assertEqual((self.path / shard_manifest.NAME).read_text(), before)


class DescriptionsTest(parameterized.TestCase):
  """A data set whose labels have names."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
    for name in 'ab':
      image = cls.folder / 'photos' / 'train' / name / '0.png'
      image.parent.mkdir(parents=True)
      Image.new('RGB', (4, 4)).save(image)
    with contextlib.redirect_stderr(io.StringIO()):  # tfds shows bars.
      cls.whole = prepared.prepare(str(cls.folder / 'photos'), str(cls.folder / 'whole'))

  def setUp(self):
    super().setUp()
    self.path = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()), 'photos', '1.0.0')
    shutil.copytree(self.whole, self.path)
    self.names, self.listed = self.path / 'label.labels.txt', self.path / shard_manifest.NAME

  def open(self):
    return sources.open_source('folder', 'train', str(self.path))

  def make_older(self):
    """As the first version wrote it."""
    content = shard_manifest.read(str(self.path))
    content['files'] = {k: v for k, v in content['files'].items() if '.array_record' in k}
    self.listed.write_text(json.dumps(content, indent=2) + '\n')

  def test_swapped_names_are_found_in_a_set_of_any_size(self):
    self.assertEqual(self.open().class_names, ('a', 'b'))
    self.names.write_text('b\na\n')
    with self.assertRaisesRegex(errors.DataError, f'file={self.names}: has SHA-256 .*; remove'):
      self.open()

  @parameterized.parameters('features.json', 'dataset_info.json')
  def test_changed_description_is_found(self, name):
    (self.path / name).write_text((self.path / name).read_text() + '\n')
    with self.assertRaisesRegex(errors.DataError, f'file=.*/{name}: has .* bytes, the manifest'):
      self.open()

  def test_description_too_many(self):
    (self.path / 'coarse.labels.txt').write_text('a\n')
    with self.assertRaisesRegex(errors.DataError, 'coarse.labels.txt: is not in the manifest'):
      self.open()

  def test_first_versions_manifest_is_the_same_data(self):
    self.assertTrue(shard_manifest.describes(shard_manifest.read(str(self.path))))
    before = self.open().fingerprint
    self.make_older()
    self.assertFalse(shard_manifest.describes(shard_manifest.read(str(self.path))))
    self.assertEqual(self.open().fingerprint, before)
    self.assertEqual(before, files.sha256(self.listed))  # What that version recorded.


if __name__ == '__main__':
  absltest.main()
