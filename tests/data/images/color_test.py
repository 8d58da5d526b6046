"""Color augmentation against a plain NumPy rendering of it, and by distribution."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bitnet_jax.data.images import augment

MEAN, STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
# fb.resnet.torch, datasets/imagenet.lua and transforms.lua, on the scale 0..1.
EIGENVALUES = np.array([0.2175, 0.0188, 0.0045])
EIGENVECTORS = np.array(
  [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]]
)


def random_images(number, seed=0):
  return np.random.default_rng(seed).integers(0, 256, (number, 6, 5, 3), np.uint8)


def keys(number, seed=0):
  rng = jax.random.key(seed)
  return jax.jit(augment.example_keys)(rng, 0, jnp.arange(number, dtype=jnp.int32))


def gray(x):
  """[height, width, 1]; Torch's grayscale()."""
  return 0.299 * x[..., :1] + 0.587 * x[..., 1:2] + 0.114 * x[..., 2:]


def step_by_step(image, order, factors, noise):
  """The recipe, an operation at a time, in float64 on the scale 0..1."""
  x = image.astype(np.float64) / 255
  targets = {
    'brightness': lambda x: np.zeros_like(x),
    'contrast': lambda x: np.full_like(x, gray(x).mean()),
    'saturation': lambda x: np.broadcast_to(gray(x), x.shape),
  }
  for kind in order:
    factor = factors[kind]
    x = factor * x + (1 - factor) * targets[('brightness', 'contrast', 'saturation')[kind]](x)
  x = x + (EIGENVECTORS * (noise * EIGENVALUES)).sum(axis=1)
  return (x - np.array(MEAN) / 255) / (np.array(STD) / 255)


class ColorMatrixTest(parameterized.TestCase):
  @parameterized.parameters(*itertools.permutations(range(3)))
  def test_equals_numpy_in_each_order(self, *order):
    rng = np.random.default_rng(0)
    image = random_images(1)[0]
    factors, noise = rng.uniform(0.6, 1.4, 3), rng.normal(0, 0.1, 3)
    matrix, offset = augment.color_matrix(
      image.mean(axis=(0, 1)), jnp.asarray(factors), jnp.asarray(noise)
    )
    got = augment.apply_color(image[None], matrix[None], offset[None])
    want = step_by_step(image, order, factors, noise)
    np.testing.assert_allclose(augment.normalize(got, MEAN, STD)[0], want, atol=2e-5)


class TrainAugmentTest(parameterized.TestCase):
  @parameterized.parameters((0.4, 0.1), (0.4, 0.0), (0.0, 0.1))
  def test_batch_equals_numpy_with_the_numbers_drawn(self, jitter, lighting):
    images = random_images(12)
    transform = augment.make_train_augment(
      mean=MEAN, std=STD, pad=0, pad_mode='zeros', flip=False, jitter=jitter, lighting=lighting
    )
    got = jax.jit(transform)(images, keys(12))
    self.assertEqual(got.dtype, jnp.float32)
    drawn = jax.vmap(lambda key: augment.draw_color(key, jitter, lighting))(keys(12))
    for image, result, *numbers in zip(images, got, *map(np.asarray, drawn), strict=True):
      np.testing.assert_allclose(result, step_by_step(image, (2, 0, 1), *numbers), atol=2e-5)

  def test_flip_comes_with_the_same_colors(self):
    images = random_images(32)
    plain, flipped = (
      np.asarray(
        augment.make_train_augment(
          mean=MEAN, std=STD, pad=0, pad_mode='zeros', flip=flip, jitter=0.4, lighting=0.1
        )(images, keys(32))
      )
      for flip in (False, True)
    )
    same = (plain == flipped).all(axis=(1, 2, 3))
    mirrored = (plain[:, :, ::-1] == flipped).all(axis=(1, 2, 3))
    np.testing.assert_array_equal(same, ~mirrored)
    self.assertBetween(same.sum(), 4, 28)

  def test_colors_do_not_depend_on_other_examples(self):
    images = random_images(16)
    transform = augment.make_train_augment(
      mean=MEAN, std=STD, pad=0, pad_mode='zeros', flip=True, jitter=0.4, lighting=0.1
    )
    whole, part = transform(images, keys(16)), transform(images[8:], keys(16)[8:])
    np.testing.assert_array_equal(whole[8:], part)


class DrawColorTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.number = 12000
    draw = jax.jit(jax.vmap(lambda key: augment.draw_color(key, 0.4, 0.1)))
    cls.factors, cls.noise = map(np.asarray, draw(keys(cls.number)))

  def test_factors_are_uniform(self):
    for column in self.factors.T:
      distance = np.abs(np.sort(column) - np.linspace(0.6, 1.4, self.number)).max() / 0.8
      self.assertLess(distance * np.sqrt(self.number), 2.2)  # Kolmogorov: once in 8,000.
      self.assertBetween(column.min(), 0.6, 0.601)
      self.assertBetween(column.max(), 1.399, 1.4)

  def test_noise_is_normal(self):
    for column in self.noise.T:
      self.assertAlmostEqual(column.mean(), 0, delta=0.004)
      self.assertAlmostEqual(column.std(), 0.1, delta=0.003)
      self.assertAlmostEqual((np.abs(column) < 0.1).mean(), 0.6827, delta=0.02)

  def test_all_are_independent(self):
    columns = np.concatenate([self.factors, self.noise], axis=1)
    correlation = np.corrcoef(columns.T) - np.eye(6)
    self.assertLess(np.abs(correlation).max(), 0.045)


class EvaluationViewsTest(absltest.TestCase):
  def test_each_crop_and_its_mirror_image(self):
    crops = np.random.default_rng(0).integers(0, 256, (3, 5, 4, 4, 3), np.uint8)
    views = augment.evaluation_views(crops, MEAN, STD).reshape(3, 10, 4, 4, 3)
    for example in range(3):
      for view in range(5):
        want = (crops[example, view] - np.array(MEAN)) / np.array(STD)
        np.testing.assert_allclose(views[example, view], want, atol=1e-5)
        np.testing.assert_allclose(views[example, 5 + view], want[:, ::-1], atol=1e-5)

  def test_one_crop_is_normalized_alone(self):
    images = random_images(2)
    got = augment.evaluation_views(images, MEAN, STD)
    np.testing.assert_array_equal(got, augment.normalize(images, MEAN, STD))


if __name__ == '__main__':
  absltest.main()
