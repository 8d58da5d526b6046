"""Tests of loading a whole split, on sources made up here."""

import io

import numpy as np
from absl.testing import absltest, parameterized
from PIL import Image

from bitnet_jax import errors
from bitnet_jax.data.batches import arrays
from bitnet_jax.data.datasets.sources import Example


def png(pixels):
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, 'PNG')
  return file.getvalue()


class FakeSource:
  name, split, class_names, channels, fingerprint = 'fake', 'train', ('a', 'b'), 3, 'f'
  hashed = True

  def __init__(self, examples, image_size=0):
    self.examples = examples
    self.image_size = image_size

  def __len__(self):
    return len(self.examples)

  def __getitem__(self, index):
    return self.examples[index]

  def __getitems__(self, indices):
    return [self.examples[index] for index in indices]


def random_source(count, size=4):
  pixels = np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8)
  examples = [Example(f'key{i}', png(image), i % 2) for i, image in enumerate(pixels)]
  return FakeSource(examples, size), pixels


class LoadArraysTest(parameterized.TestCase):
  # 600 examples are three tasks, the last of them ragged.
  @parameterized.product(workers=(0, 1, 5), count=(1, 256, 600))
  def test_every_pixel_in_its_place(self, workers, count):
    source, pixels = random_source(count)
    loaded = arrays.load_arrays(source, source.image_size, workers=workers)
    np.testing.assert_array_equal(loaded.image, pixels)
    np.testing.assert_array_equal(loaded.label, np.arange(count) % 2)
    self.assertEqual((loaded.image.dtype, loaded.label.dtype), (np.uint8, np.int32))
    self.assertEqual(loaded.class_names, ('a', 'b'))

  def test_fingerprint_adds_contents_the_source_omits(self):
    source, pixels = random_source(300)
    self.assertEqual(arrays.load_arrays(source, source.image_size).fingerprint, 'f')
    source.hashed = False
    found = {
      arrays.load_arrays(source, source.image_size, workers=workers).fingerprint
      for workers in (1, 5)
    }
    changed = pixels[7].copy()
    changed[1, 2, 0] ^= 1
    for example in (Example('key7', png(changed), 1), source.examples[5]):
      source.examples[7] = example
      found.add(arrays.load_arrays(source, source.image_size).fingerprint)
    self.assertLen(found - {'f'}, 3)

  def test_resizes_what_varies(self):
    examples = [
      Example('wide', png(np.full((8, 20, 3), 10, np.uint8)), 0),
      Example('high', png(np.full((9, 3, 3), 20, np.uint8)), 1),
    ]
    loaded = arrays.load_arrays(FakeSource(examples), 6)
    expected = np.stack([np.full((6, 6, 3), value) for value in (10, 20)])
    np.testing.assert_array_equal(loaded.image, expected)

  @parameterized.parameters(2, -1)
  def test_label_out_of_range(self, label):
    source, _ = random_source(300)
    source.examples[280] = Example('bad', source.examples[0].encoded, label)
    with self.assertRaisesRegex(errors.DataError, f'image=bad: label {label} is not in 0..1;'):
      arrays.load_arrays(source, source.image_size)

  def test_damaged_image(self):
    source, _ = random_source(300)
    source.examples[280] = Example('bad', source.examples[0].encoded[:50], 0)
    with self.assertRaisesRegex(errors.DataError, 'image=bad: damaged'):
      arrays.load_arrays(source, source.image_size)

  def test_empty(self):
    with self.assertRaisesRegex(errors.DataError, 'source=fake/train: no examples'):
      arrays.load_arrays(FakeSource([], 4), 4)

  def test_exactly_the_limit_is_allowed(self):
    source, pixels = random_source(10)
    loaded = arrays.load_arrays(source, source.image_size, max_bytes=10 * 4 * 4 * 3)
    self.assertEqual(loaded.image.nbytes, pixels.nbytes)

  def test_refuses_before_it_reads(self):
    source, _ = random_source(10)
    source.examples = [None] * 10
    with self.assertRaisesRegex(
      errors.DataError, '480 bytes of pixels, more than the 479 .*stream'
    ):
      arrays.load_arrays(source, source.image_size, max_bytes=479)


if __name__ == '__main__':
  absltest.main()
