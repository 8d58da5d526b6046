"""Augments and normalizes uint8 pixels on the device, which gives the network's input.

The random choices of an example depend on the run's seed, the step and the example's position in
the global batch, so they are the same whatever the number of devices or processes. Training
computes, for every pixel x of an image on the scale 0..255,

    y = (A x + b - mean) / std,   A = 1, b = 0 without color jitter and lighting,

then pads, crops and mirrors y:

>>> augment = make_train_augment(mean=(100.0,), std=(50.0,), pad=0, pad_mode='zeros', flip=False)
>>> image = jnp.array([[0, 100], [150, 200]], jnp.uint8).reshape(1, 2, 2, 1)
>>> print(augment(image, example_keys(jax.random.key(0), 0, jnp.arange(1))).reshape(2, 2))
[[-2.  0.]
 [ 1.  2.]]
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

Augment = Callable[[jax.Array, jax.Array], jax.Array]

GRAY = (0.299, 0.587, 0.114)
# Principal components of the colors of ILSVRC12, on the scale 0..1, one in each column
# (fb.resnet.torch, datasets/imagenet.lua).
EIGENVALUES = (0.2175, 0.0188, 0.0045)
EIGENVECTORS = (
  (-0.5675, 0.7192, 0.4009),
  (-0.5808, -0.0045, -0.8140),
  (-0.5836, -0.6948, 0.4203),
)


def example_keys(rng: jax.Array, step: jax.Array, positions: jax.Array) -> jax.Array:
  """Returns one random key for each example.

  Args:
    rng: the run's key.
    step: scalar, counted from 0.
    positions: `[batch]`, int32, positions in the global batch.

  Returns:
    Keys, `[batch]`.
  """
  step_key = jax.random.fold_in(rng, step)
  return jax.vmap(lambda position: jax.random.fold_in(step_key, position))(positions)


def normalize(images: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
  """Subtracts the mean and divides by the deviation, per channel.

  Args:
    images: `[batch, height, width, channels]`, on the scale 0..255.
    mean: per channel, on the same scale.
    std: per channel, on the same scale.

  Returns:
    float32 images of the same shape.

  >>> print(normalize(jnp.array([[[[0.0, 255.0]]]]), mean=(51.0, 102.0), std=(51.0, 51.0)))
  [[[[-1.  3.]]]]
  """
  scale = np.float32(1.0) / np.asarray(std, np.float32)
  return images.astype(jnp.float32) * scale - np.asarray(mean, np.float32) * scale


def random_crop_flip(
  images: jax.Array, keys: jax.Array, *, pad: int, pad_mode: str, flip: bool
) -> jax.Array:
  """Pads, crops to the old size at a random place and mirrors half of the images.

  Args:
    images: `[batch, height, width, channels]`, normalized, so that a zero is the mean color.
    keys: `[batch]`.
    pad: pixels added on each side; 0 for no crop.
    pad_mode: 'zeros' or 'reflect' (about the edge pixel, which is not repeated).
    flip: whether to mirror left to right with probability 1/2.

  Returns:
    Images of the same shape.

  Source:
    Section 4.1.

  Row i of the result is row i + offset of the padded image, the offset uniform in 0..2 * pad, and
  so are the columns:

  >>> image = jnp.arange(1, 10).reshape(1, 3, 3, 1)
  >>> keys = example_keys(jax.random.key(0), 0, jnp.zeros(1, jnp.int32))
  >>> print(random_crop_flip(image, keys, pad=1, pad_mode='zeros', flip=False)[0, :, :, 0])
  [[0 0 0]
   [2 3 0]
   [5 6 0]]
  """
  height, width = images.shape[1:3]
  bits = jax.vmap(lambda key: jax.random.bits(key, (3,), jnp.uint32))(keys)
  mirrored = (bits[:, 2] & 1) == 1
  if not pad:  # The gather below is slow on large images.
    return jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images) if flip else images
  rows = _window(bits[:, 0], pad, height)
  columns = _window(bits[:, 1], pad, width)
  if flip:
    columns = jnp.where(mirrored[:, None], columns[:, ::-1], columns)
  border = ((0, 0), (pad, pad), (pad, pad), (0, 0))
  images = jnp.pad(images, border, mode='constant' if pad_mode == 'zeros' else 'reflect')
  batch = jnp.arange(images.shape[0])[:, None, None]
  return images[batch, rows[:, :, None], columns[:, None, :]]


def _window(bits: jax.Array, pad: int, size: int) -> jax.Array:
  """Returns indices `[batch, size]` of windows at random offsets of 0 to 2 * pad."""
  offsets = (bits % jnp.uint32(2 * pad + 1)).astype(jnp.int32)
  return offsets[:, None] + jnp.arange(size)


def color_transform(
  images: jax.Array, keys: jax.Array, *, jitter: float, lighting: float
) -> tuple[jax.Array, jax.Array]:
  """Draws brightness, contrast, saturation and lighting noise as one affine map of the colors.

  The recipe applies the first three in random order. Without clamping, as in Torch, the order
  changes nothing (saturation leaves every gray unchanged, and all three are linear), so no order
  is drawn.

  Args:
    images: `[batch, height, width, 3]`, on the scale 0..255.
    keys: `[batch]`.
    jitter: largest change of a factor, as in `draw_color`.
    lighting: standard deviation of the noise, as in `draw_color`.

  Returns:
    Matrix `[batch, 3, 3]` and offset `[batch, 3]` for `apply_color`, whose results may leave
    0..255, as they do in Torch.

  Source:
    Section 4.2; fb.resnet.torch, datasets/transforms.lua, ColorJitter and Lighting.
  """
  mean = images.mean(axis=(1, 2), dtype=jnp.float32)

  def of_one(mean: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    return color_matrix(mean, *draw_color(key, jitter, lighting))

  with jax.default_matmul_precision('highest'):  # Of 3x3 matrices, so it costs nothing.
    return jax.vmap(of_one)(mean, keys)


def draw_color(key: jax.Array, jitter: float, lighting: float) -> tuple[jax.Array, jax.Array]:
  """Draws the random numbers of an example's colors.

  Args:
    key: key of the example.
    jitter: factors are uniform in [1 - jitter, 1 + jitter].
    lighting: standard deviation of the noise.

  Returns:
    Factors of brightness, contrast and saturation, `[3]`; noise along each principal component
    of color, `[3]`.
  """
  # The key itself draws crop and flip.
  factor_key, noise_key = jax.random.split(jax.random.fold_in(key, 1))
  factors = 1.0 + jitter * jax.random.uniform(factor_key, (3,), minval=-1.0, maxval=1.0)
  return factors, lighting * jax.random.normal(noise_key, (3,))


def color_matrix(
  mean: jax.Array, factors: jax.Array, noise: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Returns the matrix A and offset b of the map from a color x to A x + b.

  Brightness blends x with black, contrast with the mean gray of the image, saturation with the
  pixel's own gray; lighting adds a color. With factors (B, C, S), gray weights g, mean color m,
  eigenvalues e, eigenvectors V and noise z,

      A = B C (S 1 + (1 - S) [g g g]^T),   b = B (1 - C) g.m + 255 V (e z).

  >>> A, b = color_matrix(jnp.zeros(3), jnp.array([1.0, 1.0, 0.0]), jnp.zeros(3))  # Gray.
  >>> print(A @ jnp.array([100.0, 200.0, 50.0]) + b)
  [153. 153. 153.]

  Args:
    mean: mean color of the image, `[3]`, on the scale 0..255.
    factors: brightness, contrast and saturation, `[3]`.
    noise: noise along each principal component of color, `[3]`.

  Returns:
    A `[3, 3]` and b `[3]`.
  """
  brightness, contrast, saturation = factors
  gray = jnp.asarray(GRAY, jnp.float32)
  own_gray = jnp.broadcast_to(gray, (3, 3))
  matrix = brightness * contrast * (saturation * jnp.eye(3) + (1.0 - saturation) * own_gray)
  light = jnp.asarray(EIGENVECTORS, jnp.float32) @ (noise * jnp.asarray(EIGENVALUES, jnp.float32))
  return matrix, brightness * (1.0 - contrast) * (gray @ mean) + 255.0 * light


def apply_color(images: jax.Array, matrix: jax.Array, offset: jax.Array) -> jax.Array:
  """Returns A x + b of pixels `[batch, height, width, 3]`; A is `[batch, 3, 3]`, b `[batch, 3]`."""
  images = images.astype(jnp.float32)
  rows = matrix[:, None, None]  # Sums of products, not a matmul, which accelerators round.
  mixed = sum(images[..., i : i + 1] * rows[..., i] for i in range(3))
  return mixed + offset[:, None, None]


def make_train_augment(
  *,
  mean: Sequence[float],
  std: Sequence[float],
  pad: int,
  pad_mode: str,
  flip: bool,
  jitter: float = 0.0,
  lighting: float = 0.0,
) -> Augment:
  """Returns training's `augment(images, keys)`, from uint8 to float32 images of the same shape.

  Args:
    mean: per channel, on the scale 0..255.
    std: per channel, on the scale 0..255.
    pad: pixels padded on each side before the crop; 0 for no crop.
    pad_mode: 'zeros' or 'reflect', as in `random_crop_flip`.
    flip: whether half of the images are mirrored.
    jitter: largest change of brightness, contrast and saturation; 0 for none.
    lighting: standard deviation of the lighting noise; 0 for none.
  """

  def augment(images: jax.Array, keys: jax.Array) -> jax.Array:
    if jitter or lighting:
      color = color_transform(images, keys, jitter=jitter, lighting=lighting)
      images = apply_color(images, *color)
    images = normalize(images, mean, std)
    if not pad and not flip:
      return images
    return random_crop_flip(images, keys, pad=pad, pad_mode=pad_mode, flip=flip)

  return augment


def evaluation_views(images: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
  """Normalizes images; crops `[batch, views, ...]` become `[batch * 2 * views, ...]`, with mirrors.

  Args:
    images: uint8 `[batch, height, width, channels]`, or `[batch, views, height, width, channels]`.
    mean: per channel, on the scale 0..255.
    std: per channel, on the scale 0..255.

  Returns:
    float32 `[n, height, width, channels]`, the views of an example side by side.
  """
  if images.ndim == 5:
    both = jnp.concatenate([images, images[:, :, :, ::-1]], axis=1)
    images = both.reshape(-1, *images.shape[2:])
  return normalize(images, mean, std)
