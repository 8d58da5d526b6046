"""Batch norm over groups of examples, with ReLU, and its gradient written out.

Autodiff would keep the normalised input, the mask and several float32 copies; written out, the
gradient needs the input and two vectors, and passes over the activations twice.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

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
  """Normalises each group by its own mean and variance.

  Args:
    x: `[groups, examples and positions, features]`, of any float type.
    scale: `[features]`, float32.
    bias: `[features]`, float32.
    epsilon: added to the variance.
    relu: whether a ReLU follows.
    over_devices: averages a value over the devices that share a group; statistics and their
      gradients go through it.

  Returns:
    The result, of the shape and type of `x`; mean and variance (divided by the count, not by one
    less), `[groups, 1, features]`, float32. No gradient flows through these two.
  """
  return _forward(x, scale, bias, epsilon, relu, over_devices)[0]


def _forward(x, scale, bias, epsilon, relu, over_devices):
  # Sums are taken in one pass, about the first element: about zero, a mean that is large beside
  # the deviation would cost the variance its digits.
  shift = over_devices(x[:, :1].astype(jnp.float32))
  centred = x.astype(jnp.float32) - shift
  offset = over_devices(centred.mean(axis=1, keepdims=True))
  square = over_devices(jnp.square(centred).mean(axis=1, keepdims=True))
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
