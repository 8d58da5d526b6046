"""Defines the layers of the networks: convolution padded as in Torch, batch norm, pooling, head."""

from __future__ import annotations

import functools
import math
from typing import Any

import flax.errors
import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax

from bitnet_jax.models import norm
from bitnet_jax.models.kernels import XLA, Kernels

Dtype = Any


@functools.cache  # Equal layers share one function, by which `initialize` groups them.
def conv_init(mode: str = 'fan_out', init_features: int = 0) -> nn.initializers.Initializer:
  """Returns the initializer of a convolution's kernel, an untruncated normal distribution.

  Args:
    mode: 'fan_out', std sqrt(2 / (kernel area * filters)), as the paper's authors and
      fb.resnet.torch do, or 'fan_in', std sqrt(2 / (kernel area * input channels)), as the
      Wide ResNet code does.
    init_features: filters of each convolution that is fused into this one; 0 for a convolution
      that is not fused. The authors draw left and right of a tree level separately, with half
      the filters each and so with twice the variance of the fused convolution.

  Returns:
    The initializer, for kernels `[height, width, in_features, features]`.

  Source:
    Authors' Torch code, `bitnet.lua` (`ConvInit`); section 3.2 for the fusion.
  """

  def init(rng: jax.Array, shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> jax.Array:
    fan = shape[-2] if mode == 'fan_in' else (init_features or shape[-1])
    std = math.sqrt(2.0 / (math.prod(shape[:-2]) * fan))
    return std * jax.random.normal(rng, shape, dtype)

  return init


def head_init(rng: jax.Array, shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> jax.Array:
  """Draws a linear layer's weight as Torch does: uniform in +-1 / sqrt(fan in)."""
  bound = 1.0 / math.sqrt(shape[0])
  return jax.random.uniform(rng, shape, dtype, -bound, bound)


def uniform_init(rng: jax.Array, shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> jax.Array:
  """Draws batch norm's scale as the Wide ResNet code does: uniform in [0, 1)."""
  return jax.random.uniform(rng, shape, dtype)


class Layer(nn.Module):
  """Gives a module cheap access to its own parameters and statistics."""

  @nn.nowrap
  def parameter(
    self, name: str, init: nn.initializers.Initializer, shape: tuple[int, ...]
  ) -> jax.Array:
    """Returns the float32 parameter of a name.

    `nn.Module.param` would trace `init` at every use of the module, to compare shapes, which takes
    as long as to trace the layer itself.

    Raises:
      ScopeParamShapeError: the parameter exists with another shape.
    """
    if not self.has_variable('params', name):
      return self.param(name, init, shape, jnp.float32)
    value: jax.Array = self.get_variable('params', name)
    if value.shape != shape:
      raise flax.errors.ScopeParamShapeError(name, '/'.join(self.path), value.shape, shape)
    return value

  @nn.nowrap
  def statistic(
    self, name: str, init: nn.initializers.Initializer, shape: tuple[int, ...]
  ) -> jax.Array:
    """Returns the float32 running average of a name, which `put_variable` changes."""
    return self.variable('batch_stats', name, init, None, shape, jnp.float32).value


class Conv(Layer):
  """Convolves without bias, padded as Torch pads: half the kernel on every side.

  The input is `[batch, height, width, in_features]`, the output
  `[batch, ceil(height / strides), ceil(width / strides), features]`.

  Attributes:
    features: number of filters.
    kernel_size: side of the square, odd kernel.
    strides: step in both directions; with 2, Torch's padding differs from 'SAME'.
    init_features: argument of `conv_init`.
    init_mode: 'fan_out' or 'fan_in', argument `mode` of `conv_init`.
    dtype: type of the computation; the kernel is kept in float32.
    kernels: computes the convolution.
  """

  features: int
  kernel_size: int = 3
  strides: int = 1
  init_features: int = 0
  init_mode: str = 'fan_out'
  dtype: Dtype = jnp.float32
  kernels: Kernels = XLA

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Convolves `x`, `[batch, height, width, in_features]`."""
    shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
    init = conv_init(self.init_mode, self.init_features)
    return self.convolve(x, self.parameter('kernel', init, shape))

  @nn.nowrap
  def convolve(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolves `x` with a kernel `[size, size, in_features, features]`."""
    return self.kernels.convolve(x.astype(self.dtype), kernel, self.strides)


class GroupedBatchNorm(Layer):
  """Applies batch norm with statistics of a fixed number of examples, then an optional ReLU.

  Statistics are taken over `group_size` examples whatever the number of devices: over several
  groups within a device's batch, or over several devices (examples count in the order of the
  global batch). The running averages move by the mean over all groups.

  Attributes:
    group_size: examples that share statistics in training; 0 for the whole global batch.
    axis_name: the axis that pmap maps over; '' outside of pmap.
    relu: whether a ReLU follows.
    momentum: share of the running averages that is kept at each step.
    epsilon: constant added to the variance.
    scale_init: 'ones', or 'uniform' as in the Wide ResNet code.
    dtype: type of the output; statistics are computed and kept in float32.
    kernels: computes the result in training.

  Source:
    Section 4 (batch norm before every ReLU).

  Departs:
    In the authors' Torch code each GPU kept running averages of its own, and the first GPU's were
    saved.
  """

  group_size: int = 0
  axis_name: str = ''
  relu: bool = True
  momentum: float = 0.9
  epsilon: float = 1e-5
  scale_init: str = 'ones'
  dtype: Dtype = jnp.float32
  kernels: Kernels = XLA

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Normalizes `x`, `[batch, ..., features]`, by its own (`train`) or the running statistics."""
    shape = (x.shape[-1],)
    scale_init = uniform_init if self.scale_init == 'uniform' else nn.initializers.ones
    scale = self.parameter('scale', scale_init, shape)
    bias = self.parameter('bias', nn.initializers.zeros, shape)
    mean = self.statistic('mean', nn.initializers.zeros, shape)
    var = self.statistic('var', nn.initializers.ones, shape)
    return self.normalize(x, scale, bias, (mean, var), train)

  @nn.nowrap
  def normalize(
    self,
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    running: tuple[jax.Array, jax.Array],
    train: bool,
  ) -> jax.Array:
    """Returns the normalized `x`; in training, moves the running averages."""
    if not train:
      multiplier = scale * lax.rsqrt(running[1] + self.epsilon)
      y = x.astype(jnp.float32) * multiplier + (bias - running[0] * multiplier)
      return (nn.relu(y) if self.relu else y).astype(self.dtype)
    settings = {name: getattr(self, name) for name in norm.SETTINGS}
    y, mean, var = norm.batch_norm(x.astype(self.dtype), scale, bias, running, **settings)
    self.put_variable('batch_stats', 'mean', mean)
    self.put_variable('batch_stats', 'var', var)
    return y


def max_pool(x: jax.Array) -> jax.Array:
  """Pools `[batch, height, width, c]` as Torch does: 3x3 maxima, stride 2, one pixel of padding."""
  return nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))


class Head(Layer):
  """Averages over all positions and classifies, in float32.

  Attributes:
    num_classes: number of logits.
  """

  num_classes: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps `[batch, height, width, features]` to logits, `[batch, num_classes]`, float32."""
    pooled = x.astype(jnp.float32).mean(axis=(1, 2))
    kernel = self.parameter('kernel', head_init, (x.shape[-1], self.num_classes))
    bias = self.parameter('bias', nn.initializers.zeros, (self.num_classes,))
    return jnp.dot(pooled, kernel) + bias
