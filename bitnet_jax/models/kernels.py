"""Computes convolutions and batch norm: the interface, and XLA's kernels, which run everywhere.

The layers are given one object and call nothing else. Kernels of another library take its place by
having the same two methods, see `build.choose_kernels`.
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
  """What computes the layers of a network; hashable, equal objects compute alike.

  Attributes:
    name: 'xla', or what `config.model.kernels` calls the others.
  """

  @property
  def name(self) -> str: ...  # noqa: D102

  def convolve(self, x: jax.Array, kernel: jax.Array, strides: int) -> jax.Array:
    """Convolves, padded with half the kernel on every side.

    Args:
      x: `[batch, height, width, in_features]`.
      kernel: `[size, size, in_features, features]`, float32, cast to the type of `x`.
      strides: in both directions.

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
      epsilon: added to the variance.
      relu: whether a ReLU follows.
      over_devices: averages over the devices of a group; None where each has one device.

    Returns:
      The result, of the shape and type of `x`; mean and variance (divided by the count),
      `[groups, features]`, float32, through which no gradient flows.
    """


# Jitted, so that JAX traces and differentiates it once for all layers of the same shapes.
@functools.partial(jax.jit, static_argnames=('strides',))
def convolve(x: jax.Array, kernel: jax.Array, strides: int) -> jax.Array:
  """Convolves by XLA's kernels; see `Kernels.convolve`."""
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
  """XLA's own kernels, on any device and for any type; see `Kernels`."""

  name: str = 'xla'

  def convolve(self, x: jax.Array, kernel: jax.Array, strides: int) -> jax.Array:
    """See `Kernels.convolve`."""
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
    """See `Kernels.normalize`."""
    flat = x.reshape(x.shape[0], -1, x.shape[-1])
    y, mean, var = norm.normalize(flat, scale, bias, epsilon, relu, over_devices or _one_device)
    return y.reshape(x.shape), mean[:, 0], var[:, 0]


def _one_device(value: jax.Array) -> jax.Array:
  return value


XLA = XlaKernels()
