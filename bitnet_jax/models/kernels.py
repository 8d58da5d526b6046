"""Computes convolutions and batch norm for the layers: the interface, and XLA's kernels.

Each layer calls one object. Kernels of another library replace that object where they have the same
two methods; `build.choose_kernels` decides which a network gets.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Protocol

import jax
from jax import lax

from bitnet_jax.models import norm

# Averages a value over the devices that share a batch norm group.
OverDevices = Callable[[jax.Array], jax.Array]


class Kernels(Protocol):
  """Computes the layers of a network; objects are hashable, and equal objects compute alike.

  Attributes:
    name: 'xla', or the name of the others in `config.model.kernels`.
  """

  @property
  def name(self) -> str: ...  # noqa: D102

  def convolve(self, x: jax.Array, kernel: jax.Array, strides: int) -> jax.Array:
    """Convolves `x`, padded with half the kernel on every side.

    Args:
      x: `[batch, height, width, in_features]`.
      kernel: `[size, size, in_features, features]`, float32, cast to the type of `x`.
      strides: strides in both directions.

    Returns:
      `[batch, ceil(height / strides), ceil(width / strides), features]`, of the type of `x`.
    """

  def normalize(
    self,
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    epsilon: float,
    relu: bool,
    over_devices: OverDevices | None,
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalizes each group by its own mean and variance.

    Args:
      x: `[groups, examples, positions, features]`.
      scale: `[features]`, float32.
      bias: `[features]`, float32.
      epsilon: constant added to the variance.
      relu: whether a ReLU follows.
      over_devices: averages over the devices of a group; None where each has one device.

    Returns:
      The result, of the shape and type of `x`; mean and variance (divided by the count),
      `[groups, features]`, float32, through which no gradient flows.
    """


# Jitted, so that JAX traces and differentiates the function once for all layers of equal shapes.
@functools.partial(jax.jit, static_argnames=('strides',))
def convolve(x: jax.Array, kernel: jax.Array, strides: int) -> jax.Array:
  """Convolves with XLA's kernels; `Kernels.convolve` gives the shapes."""
  padding = kernel.shape[0] // 2
  return lax.conv_general_dilated(
    x,
    kernel.astype(x.dtype),
    window_strides=(strides, strides),
    padding=((padding, padding), (padding, padding)),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )


@dataclasses.dataclass(frozen=True)
class XlaKernels:
  """Computes with XLA's own kernels, on any device and for any type."""

  name: str = 'xla'

  def convolve(self, x: jax.Array, kernel: jax.Array, strides: int) -> jax.Array:
    """Convolves `x`; `Kernels.convolve` gives the shapes."""
    return convolve(x, kernel, strides)

  def normalize(
    self,
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    epsilon: float,
    relu: bool,
    over_devices: OverDevices | None,
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalizes each group; `Kernels.normalize` gives the shapes."""
    flat = x.reshape(x.shape[0], -1, x.shape[-1])
    y, mean, var = norm.normalize(flat, scale, bias, epsilon, relu, over_devices or _one_device)
    return y.reshape(x.shape), mean[:, 0], var[:, 0]


def _one_device(value: jax.Array) -> jax.Array:
  return value


XLA = XlaKernels()
