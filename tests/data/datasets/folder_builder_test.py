"""A folder of images as a tfds data set."""

import io
import pathlib
import tempfile

import numpy as np
from absl.testing import absltest, parameterized
from PIL import Image

from bitnet_jax import errors
from bitnet_jax.data.datasets import folder_builder, prepared, sources
from bitnet_jax.data.images import decode
from tests.helpers.processes import outside_environment, run_program


def encode(image, kind='JPEG', **options):
  file = io.BytesIO()
  image.save(file, kind, **options)
  return file.getvalue()


class FolderBuilderTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.root, self.data_dir = directory / 'My pets!', str(directory / 'data')
    red = Image.new('RGB', (6, 4), (200, 30, 60))
    exif = Image.Exif()
    exif[0x0112] = 6
    self.files = {
      'train/cat/a.jpg': encode(red),
      'train/cat/b.png': encode(red, 'PNG'),
      'train/dog/c.jpg': encode(red.convert('CMYK')),
      'train/dog/d.png': encode(Image.new('RGBA', (6, 4), (9, 9, 9, 0)), 'PNG'),
      'train/dog/e.png': encode(Image.new('I;16', (6, 4), 90 * 257), 'PNG'),
      'train/dog/f.jpg': encode(red, exif=exif),
      'val/dog/g.jpg': encode(Image.new('L', (6, 4), 90)),
    }
    for path, content in self.files.items():
      (self.root / path).parent.mkdir(parents=True, exist_ok=True)
      (self.root / path).write_bytes(content)

  def test_reads_as_plain_tfds(self):
    path = prepared.prepare(str(self.root), self.data_dir)
    self.assertEqual(path, f'{self.data_dir}/my_pets/1.0.0')
    # A program of somebody else, which must never see this package.
    env = outside_environment()
    done = run_program('plain_tfds_folder', self.data_dir, cwd=self.data_dir, env=env)
    self.assertEqual(done.returncode, 0, done.stderr)
    *lines, modules = done.stdout.splitlines()
    self.assertEqual(modules, '[]')
    self.assertCountEqual(
      lines,
      [
        'train train/cat/a.jpg 0 (4, 6, 3) [20, 3, 6]',
        'train train/cat/b.png 0 (4, 6, 3) [20, 3, 6]',
        'train train/dog/c.jpg 1 (4, 6, 3) [20, 3, 6]',
        'train train/dog/d.png 1 (4, 6, 3) [26, 26, 26]',
        'train train/dog/e.png 1 (4, 6, 3) [9, 9, 9]',
        'train train/dog/f.jpg 1 (6, 4, 3) [20, 3, 6]',
        'val val/dog/g.jpg 1 (4, 6, 3) [9, 9, 9]',
      ],
    )

  def test_is_trained_on_like_the_folder_itself(self):
    path = prepared.prepare(str(self.root), self.data_dir)
    for split in ('train', 'val'):
      folder = sources.open_source('folder', split, str(self.root))
      there = sources.open_source('folder', split, path)
      self.assertEqual(there.class_names, folder.class_names)
      examples = {e.key: e for e in map(there.__getitem__, range(len(there)))}
      self.assertLen(examples, len(folder))
      for example in map(folder.__getitem__, range(len(folder))):
        other = examples[example.key]
        self.assertEqual(other.label, example.label)
        np.testing.assert_array_equal(
          decode.decode(other.encoded, 3, ''), decode.decode(example.encoded, 3, '')
        )
        keeps = example.key[-5] in 'abg'
        self.assertEqual(other.encoded == example.encoded, keeps, example.key)

  def test_broken_image_is_named(self):
    (self.root / 'train/cat/z.jpg').write_bytes(self.files['train/cat/a.jpg'][:200])
    with self.assertRaisesRegex(errors.DataError, 'image=train/cat/z.jpg: damaged'):
      prepared.prepare(str(self.root), self.data_dir)

  @parameterized.parameters(
    ('/x/My pets!', 'my_pets'), ('photos/', 'photos'), ('/x/2024', 'folder_2024'), ('/Ä', 'folder')
  )
  def test_name(self, path, name):
    self.assertEqual(folder_builder.name_of(path), name)


if __name__ == '__main__':
  absltest.main()
