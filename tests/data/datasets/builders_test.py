"""Tests of the builders' parts: PNG, archives, the digits."""

import tempfile

import numpy as np
from absl.testing import absltest, parameterized
from PIL import Image
from sklearn import datasets

from bitnet_jax.config.datasets import DATASETS
from bitnet_jax.data.datasets import builders, prepared, sources
from bitnet_jax.data.images import decode


class EncodePngTest(parameterized.TestCase):
  @parameterized.parameters(((5, 7),), ((5, 7, 3),))
  def test_loses_nothing(self, shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    encoded = builders.encode_png(pixels)
    with Image.open(encoded) as image:
      self.assertEqual(image.format, 'PNG')
      np.testing.assert_array_equal(np.asarray(image), pixels)


class TableTest(parameterized.TestCase):
  def test_configuration_lists_every_builder(self):
    self.assertEqual(set(DATASETS), {*builders.BUILDERS, 'folder'})

  @parameterized.parameters(*builders.BUILDERS)
  def test_image_size_is_that_of_the_features(self, name):
    builder = prepared.make_builder(name, self.create_tempdir().full_path)
    self.assertEqual(DATASETS[name].image_size, builder.info.features['image'].shape[0] or 0)

  def test_images_of_a_folder_vary_in_size(self):
    self.assertEqual(DATASETS['folder'].image_size, sources.FolderSource.image_size)


class DigitsTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.data_dir = cls.enterClassContext(tempfile.TemporaryDirectory())
    prepared.prepare('digits', cls.data_dir)

  def test_every_image_label_and_place(self):
    digits = datasets.load_digits()
    # 255 / 16 a level: 16 is white, 8 is 127.5, rounded to even.
    expected = np.round(digits.images * 255 / 16)
    seen = set()
    for split, first, count in (('train', 0, 1437), ('test', 1437, 360)):
      source = sources.open_source('digits', split, self.data_dir)
      self.assertLen(source, count)
      for index in range(count):
        example = source[index]
        row = first + int(example.key.removeprefix(f'{split}_'))
        pixels = decode.decode(example.encoded, 1, example.key)
        np.testing.assert_array_equal(pixels[..., 0], expected[row])
        self.assertEqual(example.label, digits.target[row])
        seen.add(row)
    self.assertEqual(seen, set(range(1797)))

  def test_what_it_says_of_itself(self):
    source = sources.open_source('digits', 'test', self.data_dir)
    self.assertEqual((source.channels, source.image_size), (1, 8))
    self.assertEqual(source.class_names, tuple('0123456789'))

  def test_is_stored_in_mixed_order(self):
    source = sources.open_source('digits', 'train', self.data_dir)
    self.assertNotEqual([source[i].key for i in range(3)], [f'train_0000{i}' for i in range(3)])


if __name__ == '__main__':
  absltest.main()
