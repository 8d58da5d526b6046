"""Convolves with 3x3 kernels by Winograd's method, on the CPU in float32.

An image is cut into tiles of 4x4 outputs. The 6x6 inputs of a tile are mapped to 36 numbers, and
each number is multiplied, over channels, by a matrix of its own: 36 multiplications replace the 144
of the direct sum. oneDNN computes the matrix products; the maps into the tiles and out of the tiles
are sums of few slices, which XLA compiles to one loop each.

With d the 6x6 inputs of a tile, g the kernel and y the 4x4 outputs,

    y = A'[(G g G') * (B' d B)]A.

The sums have factors up to 8, so rounding is 1e-5 of the largest output, where a direct sum has
1e-6.

Source:
  Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, 2016, F(4x4, 3x3).
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from bitnet_jax.onednn import custom_call

_INPUT = np.array(  # B', 6x6
  [
    [4, 0, -5, 0, 1, 0],
    [0, -4, -4, 1, 1, 0],
    [0, 4, -4, -1, 1, 0],
    [0, -2, -1, 2, 1, 0],
    [0, 2, -1, -2, 1, 0],
    [0, 4, 0, -5, 0, 1],
  ],
  np.float32,
)
_KERNEL = np.array(  # G, 6x3
  [[6, 0, 0], [-4, -4, -4], [-4, 4, -4], [1, 2, 4], [1, -2, 4], [0, 0, 24]], np.float32
) / np.float32(24)
_OUTPUT = np.array(  # A', 4x6
  [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]], np.float32
)


# The transpose of `_INPUT`, whose rows overlap from tile to tile: each pixel of a block is a sum
# over the 6 numbers of its own tile along an axis, the last number of the previous tile and the
# first of the next.
_JOIN = np.concatenate(
  [_INPUT[:, 1:5].T, _INPUT[5, 5] * np.eye(4, 1), _INPUT[0, 0] * np.eye(4, 1, -3)], axis=1
).astype(np.float32)

# Time for a pixel, relative to a multiply-add of a direct convolution: of the matrix products, for
# each pair of channels (36 multiplications for 16 pixels, by a kernel further from the processor's
# rate), and of the maps, for each channel. Measured with AVX-512 on two cores.
_PRODUCTS, _MAPS = 2.9, 120
# Largest number of tiles in a part of the batch: with fewer tiles the kernel is read too often, and
# more tiles exceed the cache.
_TILES = 512
# Smallest product of pixels, channels and filters; below, the overhead of operations dominates.
_MIN_PRODUCTS = 2**25

# Pixels of a block, and numbers of a tile, along an axis.
_BLOCK, _TILE = 4, 6


def _split(x: jax.Array, axis: int) -> list[jax.Array]:
  return [*lax.split(x, (1,) * x.shape[axis], axis)]


def _combine(
  matrix: np.ndarray, parts: Sequence[jax.Array], axis: int, to: int | None = None
) -> jax.Array:
  """Returns the sums of `parts` with the factors of each row of `matrix`, along an axis.

  Args:
    matrix: factors, `[sums, parts]`.
    parts: arrays of one shape, 1 along `axis`.
    axis: axis of the parts.
    to: axis of the sums; None for `axis`.
  """
  to = axis if to is None else to
  shape = [*parts[0].shape]
  shape.insert(to, shape.pop(axis))
  factors = [-1 if i == to else 1 for i in range(len(shape))]
  terms = [
    column.reshape(factors) * part.reshape(shape)
    for column, part in zip(matrix.T, parts, strict=True)
  ]
  return sum(terms[1:], terms[0])


def _shift(x: jax.Array, axis: int, step: int) -> jax.Array:
  """Shifts `x` along an axis by one position forward (1) or back (-1), and fills with zeros."""
  padding = [(0, 0, 0)] * x.ndim
  padding[axis] = (step, -step, 0)
  return lax.pad(x, jnp.zeros((), x.dtype), padding)


@jax.jit  # For the reason in `models.kernels`.
def _cut(x: jax.Array) -> jax.Array:
  """Maps d `[n, height, width, c]` to B' d B of its tiles, `[6, n, rows, columns, 6, c]`."""
  n, height, width, c = x.shape
  pixels = _split(x.reshape(n, height, width // _BLOCK, _BLOCK, c), 3)
  parts = [_shift(pixels[-1], 2, 1), *pixels, _shift(pixels[0], 2, -1)]
  x = lax.optimization_barrier(_combine(_INPUT, parts, 3))
  pixels = _split(x.reshape(n, height // _BLOCK, _BLOCK, *x.shape[2:]), 2)
  parts = [_shift(pixels[-1], 1, 1), *pixels, _shift(pixels[0], 1, -1)]
  return lax.optimization_barrier(_combine(_INPUT, parts, 2, to=0))


def _cut_transposed(tiles: jax.Array) -> jax.Array:
  """Maps the gradient of `_cut`'s result to the gradient of its argument."""
  _, n, rows, columns, _, c = tiles.shape
  parts = _split(tiles, 0)
  parts += [_shift(parts[-1], 2, 1), _shift(parts[0], 2, -1)]
  x = lax.optimization_barrier(_combine(_JOIN, parts, 0, to=2))
  parts = _split(x, 4)
  parts += [_shift(parts[-1], 3, 1), _shift(parts[0], 3, -1)]
  x = lax.optimization_barrier(_combine(_JOIN, parts, 4))
  return x.reshape(n, rows * _BLOCK, columns * _BLOCK, c)


def _join(tiles: jax.Array) -> jax.Array:
  """Maps tiles m `[6, n, rows, columns, 6, c]` to A' m A, `[n, height, width, c]`."""
  _, n, rows, columns, _, c = tiles.shape
  x = lax.optimization_barrier(_combine(_OUTPUT, _split(tiles, 0), 0, to=2))
  x = lax.optimization_barrier(_combine(_OUTPUT, _split(x, 4), 4))
  return x.reshape(n, rows * _BLOCK, columns * _BLOCK, c)


def _join_transposed(x: jax.Array) -> jax.Array:
  """Maps the gradient of `_join`'s result to the gradient of its argument."""
  n, height, width, c = x.shape
  parts = _split(x.reshape(n, height, width // _BLOCK, _BLOCK, c), 3)
  x = lax.optimization_barrier(_combine(_OUTPUT.T, parts, 3))
  parts = _split(x.reshape(n, height // _BLOCK, _BLOCK, *x.shape[2:]), 2)
  return lax.optimization_barrier(_combine(_OUTPUT.T, parts, 2, to=0))


def _map_kernel(matrix: np.ndarray, kernel: jax.Array) -> jax.Array:
  """Applies `matrix` to both sides of a kernel, `[a, b, c, features]`."""
  rows, columns = matrix.shape
  both = np.kron(matrix, matrix)
  flat = kernel.reshape(columns**2, -1)
  mapped = lax.dot(jnp.asarray(both), flat, precision=lax.Precision.HIGHEST)
  return mapped.reshape(rows, rows, *kernel.shape[2:])


def _flat(tiles: jax.Array) -> jax.Array:
  return tiles.reshape(_TILE, -1, _TILE, tiles.shape[-1])


def _pad(x: jax.Array) -> jax.Array:
  """Fills `[n, height, width, c]` with zeros up to whole blocks."""
  height, width = x.shape[1:3]
  return jnp.pad(x, ((0, 0), (0, -height % _BLOCK), (0, -width % _BLOCK), (0, 0)))


def pays(x: jax.Array, kernel_shape: Sequence[int], strides: int) -> bool:
  """Returns whether Winograd's method is faster than oneDNN's kernels for a convolution.

  Args:
    x: `[batch, height, width, in_features]`.
    kernel_shape: (size, size, in_features, features).
    strides: strides in both directions.
  """
  if x.dtype != jnp.float32 or strides != 1 or kernel_shape[0] != 3:
    return False
  n, height, width, c = x.shape
  features = kernel_shape[-1]
  filled = -(-height // _BLOCK) * -(-width // _BLOCK) * _BLOCK**2 / (height * width)
  products = _PRODUCTS * c * features + _MAPS * (c + features)
  enough = n * height * width * c * features >= _MIN_PRODUCTS
  return enough and filled * products < 9 * c * features


def _divide(x: jax.Array) -> jax.Array:
  """Divides `[batch, height, width, c]` into `[parts, examples, height, width, c]`.

  Zeros fill the last part, which change no sum.
  """
  n, height, width, c = x.shape
  max_examples = max(_TILES // (-(-height // _BLOCK) * -(-width // _BLOCK)), 1)
  parts = -(-n // max_examples)
  x = jnp.pad(x, ((0, -n % parts), (0, 0), (0, 0), (0, 0)))
  return x.reshape(parts, -1, height, width, c)


def _undivide(parts: jax.Array, n: int) -> jax.Array:
  return parts.reshape(-1, *parts.shape[2:])[:n]


@jax.jit  # For the reason in `models.kernels`.
def conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
  """Convolves `x`, padded with one pixel on every side.

  Args:
    x: `[batch, height, width, in_features]`, float32.
    kernel: `[3, 3, in_features, features]`, float32.

  Returns:
    `[batch, height, width, features]`, float32.
  """
  return _conv(x, kernel)


@jax.custom_vjp
def _conv(x, kernel):
  height, width = x.shape[1:3]
  features = kernel.shape[-1]
  matrices = _map_kernel(_KERNEL, kernel)

  def run(part: jax.Array) -> jax.Array:
    tiles = _cut(_pad(part))
    products = custom_call.matmul(_flat(tiles), matrices, 'ambk,abkn->ambn')
    return _join(products.reshape(*tiles.shape[:-1], features))[:, :height, :width]

  return _undivide(lax.map(run, _divide(x)), len(x))


def _forward(x, kernel):
  return _conv(x, kernel), (x, kernel)


def _backward(saved, dy):
  x, kernel = saved
  height, width = x.shape[1:3]
  matrices = _map_kernel(_KERNEL, kernel)

  def run(total, part):
    tiles, products = _cut(_pad(part[0])), _flat(_join_transposed(_pad(part[1])))
    dtiles = custom_call.matmul(products, matrices, 'ambk,abnk->ambn').reshape(tiles.shape)
    total += custom_call.matmul(_flat(tiles), products, 'akbm,akbn->abmn')
    return total, _cut_transposed(dtiles)[:, :height, :width]

  parts = _divide(x), _divide(dy)
  total, dx = lax.scan(run, jnp.zeros_like(matrices), parts)
  return _undivide(dx, len(x)), _map_kernel(_KERNEL.T, total)


_conv.defvjp(_forward, _backward)
