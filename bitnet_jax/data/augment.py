"""Augmentation and normalisation on the device, from uint8 pixels to the network's input.

The random choices of an example depend on the run's seed, the step and the example's position in
the global batch, so they are the same whatever the number of devices or processes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

Augment = Callable[[jax.Array, jax.Array], jax.Array]


def example_keys(rng: jax.Array, step: jax.Array, positions: jax.Array) -> jax.Array:
  """One random key for each example.

  Args:
    rng: the run's key.
    step: scalar, counted from 0.
    positions: `[batch]`, int32, in the global batch.

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
    float32 images.
  """
  scale = np.float32(1.0) / np.asarray(std, np.float32)
  return images.astype(jnp.float32) * scale - np.asarray(mean, np.float32) * scale


def random_crop_flip(
  images: jax.Array, keys: jax.Array, *, pad: int, pad_mode: str, flip: bool
) -> jax.Array:
  """Pads, crops to the old size at a random place and mirrors half of the images.

  Args:
    images: `[batch, height, width, channels]`, normalised, so that a zero is the mean colour.
    keys: `[batch]`.
    pad: pixels added on each side; 0 for no crop.
    pad_mode: 'zeros' or 'reflect' (about the edge pixel, which is not repeated).
    flip: whether to mirror left to right with probability 1/2.

  Returns:
    Images of the same shape.

  Source:
    Section 4.1.
  """
  height, width = images.shape[1:3]
  bits = jax.vmap(lambda key: jax.random.bits(key, (3,), jnp.uint32))(keys)
  rows = _window(bits[:, 0], pad, height)
  columns = _window(bits[:, 1], pad, width)
  if flip:
    columns = jnp.where((bits[:, 2] & 1)[:, None] == 1, columns[:, ::-1], columns)
  if pad:
    border = ((0, 0), (pad, pad), (pad, pad), (0, 0))
    images = jnp.pad(images, border, mode='constant' if pad_mode == 'zeros' else 'reflect')
  batch = jnp.arange(images.shape[0])[:, None, None]
  return images[batch, rows[:, :, None], columns[:, None, :]]


def _window(bits: jax.Array, pad: int, size: int) -> jax.Array:
  """Indices of a window of `size` at a random offset of 0 to 2 * pad, `[batch, size]`."""
  offsets = (bits % jnp.uint32(2 * pad + 1)).astype(jnp.int32)
  return offsets[:, None] + jnp.arange(size)


def make_train_augment(
  *, mean: Sequence[float], std: Sequence[float], pad: int, pad_mode: str, flip: bool
) -> Augment:
  """What training does to uint8 images: `augment(images, keys)` gives float32 of the same shape."""

  def augment(images: jax.Array, keys: jax.Array) -> jax.Array:
    images = normalize(images, mean, std)
    if not pad and not flip:
      return images
    return random_crop_flip(images, keys, pad=pad, pad_mode=pad_mode, flip=flip)

  return augment
