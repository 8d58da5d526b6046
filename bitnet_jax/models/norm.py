"""Computes batch norm over groups of examples, with ReLU, and its gradient, for the layers.

Autodiff would keep the normalized input, the mask and several float32 copies. The gradient written
out here needs the input and two vectors, and passes over the activations twice.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from bitnet_jax.config import sizes

SETTINGS = ('group_size', 'axis_name', 'relu', 'momentum', 'epsilon', 'kernels')
# Averages a value over the devices of a group.
OverDevices = Callable[[jax.Array], jax.Array]


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def normalize(
  x: jax.Array,
  scale: jax.Array,
  bias: jax.Array,
  epsilon: float,
  relu: bool,
  over_devices: OverDevices,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Normalizes each group by its own mean and variance.

  With m and v the mean and variance of a group's N values x of a feature, r = (v + epsilon)**-0.5
  and n = (x - m) r, the result and the gradients of a loss L are

      y = scale n + bias, then max(y, 0) if relu
      g = dL/dy, times [y > 0] if relu
      dL/dx = scale r (g - mean(g) - n mean(g n)),   dL/dscale = sum(g n),   dL/dbias = sum(g).

  >>> x = jnp.array([[[1.0], [3.0]], [[10.0], [30.0]]])  # Two groups of two examples.
  >>> y, mean, var = normalize(x, jnp.ones(1), jnp.zeros(1), 0.0, False, lambda value: value)
  >>> print(y.ravel(), mean.ravel(), var.ravel())
  [-1.  1. -1.  1.] [ 2. 20.] [  1. 100.]

  Args:
    x: `[groups, examples and positions, features]`, of any float type.
    scale: `[features]`, float32.
    bias: `[features]`, float32.
    epsilon: constant added to the variance.
    relu: whether a ReLU follows.
    over_devices: averages a value over the devices that share a group, for the statistics and
      their gradients.

  Returns:
    The result, of the shape and type of `x`; mean and variance (divided by the count, not by one
    less), `[groups, 1, features]`, float32. No gradient flows through these two.
  """
  return _forward(x, scale, bias, epsilon, relu, over_devices)[0]


def _forward(x, scale, bias, epsilon, relu, over_devices):
  # Sums are taken in one pass, about the first element: about zero, a mean that is large beside
  # the deviation would cost the variance its digits.
  shift = over_devices(x[:, :1].astype(jnp.float32))
  centered = x.astype(jnp.float32) - shift
  offset = over_devices(centered.mean(axis=1, keepdims=True))
  square = over_devices(jnp.square(centered).mean(axis=1, keepdims=True))
  mean, var = shift + offset, jnp.maximum(square - jnp.square(offset), 0.0)
  inverse = lax.rsqrt(var + epsilon)
  y = (x.astype(jnp.float32) - mean) * (inverse * scale) + bias
  y = (jnp.maximum(y, 0.0) if relu else y).astype(x.dtype)
  return (y, mean, var), (x, scale, bias, mean, inverse)


def _backward(epsilon, relu, over_devices, saved, gradients):
  del epsilon
  x, scale, bias, mean, inverse = saved
  gradient = gradients[0].astype(jnp.float32)
  normal = (x.astype(jnp.float32) - mean) * inverse
  if relu:
    gradient = jnp.where(normal * scale + bias > 0, gradient, 0.0)
  mean_gradient = gradient.mean(axis=1, keepdims=True)
  mean_product = (gradient * normal).mean(axis=1, keepdims=True)
  flow = gradient - over_devices(mean_gradient) - normal * over_devices(mean_product)
  count = x.shape[1]
  return (
    (flow * (inverse * scale)).astype(x.dtype),
    mean_product.sum(axis=(0, 1)) * count,
    mean_gradient.sum(axis=(0, 1)) * count,
  )


normalize.defvjp(_forward, _backward)


def group_layout(local_batch: int, group_size: int, num_devices: int) -> tuple[int, int]:
  """Returns how batch norm's groups lie on the devices.

  A group of G examples, on devices of b examples each, is b / G groups on every device where
  G divides b, and one group over G / b devices where b divides G:

  >>> group_layout(128, 64, num_devices=1)
  (2, 1)
  >>> group_layout(32, 64, num_devices=8)
  (1, 2)

  Args:
    local_batch: examples on one device.
    group_size: examples that share statistics; 0 for the whole batch of all devices.
    num_devices: devices along the mapped axis.

  Returns:
    (groups on a device, devices of a group); one of the two is 1.

  Raises:
    ValueError: the group neither divides a device's batch nor is a multiple of it that divides
      the number of devices.
  """
  layout = sizes.group_layout(local_batch, group_size, num_devices)
  if layout:
    return layout
  raise ValueError(
    f'batch norm group of {group_size} does not fit {num_devices} device(s) with {local_batch} '
    f'examples each; choose a group that divides {local_batch}, or a multiple of it'
  )


# Jitted, so that JAX traces and differentiates the function once for all layers of equal shapes.
@functools.partial(jax.jit, static_argnames=SETTINGS)
def batch_norm(
  x: jax.Array,
  scale: jax.Array,
  bias: jax.Array,
  running: tuple[jax.Array, jax.Array],
  *,
  group_size: int,
  axis_name: str,
  relu: bool,
  momentum: float,
  epsilon: float,
  kernels: Any,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Applies batch norm in training, and moves the running averages.

  The settings are the fields of `layers.GroupedBatchNorm`, which describes them. A running average
  becomes momentum * average + (1 - momentum) * mean over the groups of this batch.

  Args:
    x: `[batch, ..., features]`, of the type of the result.
    scale: `[features]`, float32.
    bias: `[features]`, float32.
    running: averages of mean and variance, `[features]` each.
    group_size: examples that share statistics.
    axis_name: the axis that pmap maps over, or ''.
    relu: whether a ReLU follows.
    momentum: share of the running averages that is kept.
    epsilon: constant added to the variance.
    kernels: computes the result, as `kernels.Kernels`.

  Returns:
    The result, and the two averages after this batch.

  Raises:
    ValueError: the groups do not fit the devices.
  """
  num_devices = lax.axis_size(axis_name) if axis_name else 1
  groups, devices = group_layout(x.shape[0], group_size, num_devices)
  count = x.size // x.shape[-1] // groups * devices
  over_devices = None
  if devices > 1:
    peers = [list(range(first, first + devices)) for first in range(0, num_devices, devices)]

    def over_devices(value: jax.Array) -> jax.Array:
      return lax.pmean(value, axis_name, axis_index_groups=peers)

  grouped = x.reshape(groups, x.shape[0] // groups, -1, x.shape[-1])
  y, mean, var = kernels.normalize(grouped, scale, bias, epsilon, relu, over_devices)
  unbiased = var * (count / max(count - 1, 1))  # Torch averages this one.
  keep = momentum
  running_mean = keep * running[0] + (1 - keep) * mean.mean(axis=0)
  running_var = keep * running[1] + (1 - keep) * unbiased.mean(axis=0)
  return y.reshape(x.shape), running_mean, running_var
