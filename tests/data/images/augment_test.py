"""Crop, flip and normalization against NumPy, and their independence of the number of devices."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bitnet_jax.data.images import augment
from bitnet_jax.distributed import devices

MEAN = (125.3, 123.0, 113.9)
STD = (63.0, 62.1, 66.7)
PAD = 4
NUMPY_MODES = {'zeros': 'constant', 'reflect': 'reflect'}


def random_images(number, height, width, seed=0):
  shape = (number, height, width, 3)
  return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def make(pad=PAD, pad_mode='zeros', flip=True):
  augmented = augment.make_train_augment(mean=MEAN, std=STD, pad=pad, pad_mode=pad_mode, flip=flip)
  return jax.jit(augmented)


normalize = jax.jit(lambda images: augment.normalize(images, MEAN, STD))
example_keys = jax.jit(augment.example_keys)


def keys(step, positions, seed=0):
  return example_keys(jax.random.key(seed), step, jnp.asarray(positions, jnp.int32))


def normalized(image):
  """Exactly as the device rounds, so that crops can be compared bit for bit."""
  return np.asarray(normalize(image[None])[0])


def all_crops(image, pad, pad_mode, flip):
  """Every image that may come out: bytes -> (row, column, flipped)."""
  height, width = image.shape[:2]
  border = ((pad, pad), (pad, pad), (0, 0))
  padded = np.pad(normalized(image), border, mode=NUMPY_MODES[pad_mode])
  crops = {}
  for row, column in itertools.product(range(2 * pad + 1), repeat=2):
    crop = padded[row : row + height, column : column + width]
    for flipped in (False, True)[: 1 + flip]:
      image = np.ascontiguousarray(crop[:, ::-1] if flipped else crop)
      crops[image.tobytes()] = (row, column, flipped)
  return crops


class NormalizeTest(absltest.TestCase):
  def test_is_float64s_to_rounding(self):
    images = random_images(4, 6, 5)
    got = augment.normalize(jnp.asarray(images), MEAN, STD)
    self.assertEqual(got.dtype, jnp.float32)
    np.testing.assert_allclose(got, (images - np.array(MEAN)) / np.array(STD), atol=1e-6)


class CropFlipTest(parameterized.TestCase):
  @parameterized.parameters('zeros', 'reflect')
  def test_every_crop_comes_equally_often(self, pad_mode):
    # Reflected images of fewer than ten pixels are alike at two places, one of them mirrored.
    image = random_images(1, 11, 10)[0]
    crops = all_crops(image, PAD, pad_mode, flip=True)
    self.assertEqual(len(crops), 81 * 2)
    number = 162 * 50
    batch = np.broadcast_to(image, (number, *image.shape))
    outputs = np.asarray(make(pad_mode=pad_mode)(batch, keys(3, np.arange(number))))
    counts = dict.fromkeys(crops.values(), 0)
    for output in outputs:
      counts[crops[output.tobytes()]] += 1  # a KeyError: an image that no crop gives
    statistic = sum((count - 50) ** 2 / 50 for count in counts.values())
    # 161 degrees of freedom: 161 on average, deviation 18. Six deviations above, five below.
    self.assertBetween(statistic, 71, 269)
    self.assertGreater(min(counts.values()), 0)

  @parameterized.product(pad_mode=('zeros', 'reflect'), flip=(False, True), pad=(0, 1, 4))
  def test_outputs_are_crops(self, pad_mode, flip, pad):
    images = random_images(32, 10, 13)
    outputs = np.asarray(make(pad, pad_mode, flip)(images, keys(0, np.arange(32))))
    seen = [
      all_crops(image, pad, pad_mode, flip)[output.tobytes()]
      for image, output in zip(images, outputs, strict=True)
    ]
    rows, columns, flips = map(set, zip(*seen, strict=True))
    self.assertEqual(flips, {False, True} if flip else {False})
    self.assertContainsSubset({0, 2 * pad}, rows)
    self.assertContainsSubset({0, 2 * pad}, columns)

  def test_nothing_to_do(self):
    images = random_images(4, 10, 13)
    got = make(pad=0, flip=False)(images, keys(0, np.arange(4)))
    np.testing.assert_array_equal(got, np.stack([normalized(image) for image in images]))

  def test_border_is_zero_after_normalization(self):
    """The mean color, where a border of black pixels would be about -2."""
    white = np.full((64, 8, 8, 3), 255, np.uint8)
    outputs = np.asarray(make(flip=False)(white, keys(0, np.arange(64))))
    inside = normalized(white[0])[0, 0]
    self.assertGreater(inside.min(), 1.9)
    border = (outputs != inside).any(axis=-1)
    self.assertGreater(border.sum(), 0)
    np.testing.assert_array_equal(outputs[border], 0)

  def test_channels_stay_together(self):
    images = np.repeat(random_images(16, 8, 8)[..., :1], 3, axis=-1)
    outputs = np.asarray(make()(images, keys(0, np.arange(16))))
    colors = outputs * np.array(STD) + np.array(MEAN)
    inside = outputs.any(axis=-1)
    np.testing.assert_allclose(colors[inside][:, 0], colors[inside][:, 2], atol=1e-3)


class RandomnessTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.images = random_images(64, 8, 8)
    self.augment = make()
    self.whole = np.asarray(self.augment(self.images, keys(5, np.arange(64))))

  @parameterized.parameters(1, 2, 4, 8)
  def test_pieces_of_devices_make_the_whole(self, number):
    local = 64 // number
    pieces = [
      self.augment(self.images[first : first + local], keys(5, np.arange(first, first + local)))
      for first in range(0, 64, local)
    ]
    np.testing.assert_array_equal(np.concatenate(pieces), self.whole)

  def test_mapped_over_devices(self):
    number = jax.local_device_count()
    self.assertGreater(number, 1)
    local = 64 // number
    transform = augment.make_train_augment(mean=MEAN, std=STD, pad=PAD, pad_mode='zeros', flip=True)

    def step(images, step):
      positions = devices.global_positions(local)
      return transform(images, augment.example_keys(jax.random.key(0), step, positions))

    split = self.images.reshape(number, local, 8, 8, 3)
    got = devices.map_devices(step)(split, np.full(number, 5, np.int32))
    np.testing.assert_array_equal(np.concatenate(np.asarray(got)), self.whole)

  def test_choices_do_not_depend_on_other_examples(self):
    order = np.random.default_rng(0).permutation(64)
    shuffled = self.augment(self.images[order], keys(5, order))
    np.testing.assert_array_equal(shuffled, self.whole[order])

  @parameterized.parameters(({'step': 6},), ({'seed': 1},), ({'positions': np.arange(64) + 64},))
  def test_step_seed_and_position_change_the_choices(self, change):
    other = keys(**{'step': 5, 'positions': np.arange(64), **change})
    same = (np.asarray(self.augment(self.images, other)) == self.whole).all(axis=(1, 2, 3))
    self.assertLess(same.sum(), 5)  # one in 162 by chance

  def test_keys_do_not_repeat_over_steps_and_positions(self):
    """A key of step + position, say, would give an example its neighbor's choices."""
    data = [jax.random.key_data(keys(step, np.arange(32))) for step in range(8)]
    self.assertLen(np.unique(np.concatenate(data), axis=0), 8 * 32)


if __name__ == '__main__':
  absltest.main()
