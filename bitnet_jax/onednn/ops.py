"""Computes convolution and batch norm with ReLU on the CPU by oneDNN, with their gradients.

XLA's kernels for the CPU reach half of the processor's rate in a convolution's gradients, pass over
the activations several times in batch norm, and gain nothing from bfloat16. The functions here
equal those of `models.kernels` up to rounding.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from bitnet_jax.onednn import custom_call, library, primitives

# Names of types in `library`.
TYPES = {jnp.dtype('float32'): 'f32', jnp.dtype('bfloat16'): 'bf16'}
# XLA's batch norm is faster where the channels do not fill vector registers.
_CHANNEL_UNIT = {'f32': 8, 'bf16': 16}


def runs_conv(dtype: jax.typing.DTypeLike) -> bool:
  """Returns whether oneDNN computes convolutions of a type."""
  return TYPES.get(jnp.dtype(dtype), '') in library.fast_types()


def runs_norm(dtype: jax.typing.DTypeLike, features: int) -> bool:
  """Returns whether oneDNN computes batch norm of a type over `features` channels."""
  return runs_conv(dtype) and features % _CHANNEL_UNIT[TYPES[jnp.dtype(dtype)]] == 0


@functools.partial(jax.jit, static_argnames=('strides',))  # For the reason in `models.kernels`.
def conv(x: jax.Array, kernel: jax.Array, strides: int) -> jax.Array:
  """Convolves `x`, padded with half the kernel on every side.

  Args:
    x: `[batch, height, width, in_features]`, float32 or bfloat16.
    kernel: `[size, size, in_features, features]`, float32, rounded to the type of `x`.
    strides: strides in both directions.

  Returns:
    `[batch, ceil(height / strides), ceil(width / strides), features]`, of the type of `x`. The
    kernel's gradient is summed and given in float32.
  """
  return _conv(x, kernel, strides)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv(x, kernel, strides):
  result = _conv_result(x, kernel, strides)
  return _conv_call('conv_forward', x, kernel, strides, (x, kernel), result)


def _conv_result(x, kernel, strides):
  n, height, width, _ = x.shape
  return (n, -(-height // strides), -(-width // strides), kernel.shape[-1]), x.dtype


def _conv_call(operation, x, kernel, strides, operands, result):
  sizes = (*x.shape, kernel.shape[-1], kernel.shape[0], strides)
  name = ' '.join(map(str, (operation, TYPES[x.dtype], *sizes)))
  return custom_call.call(name, operands, [jax.ShapeDtypeStruct(*result)])[0]


def _conv_forward(x, kernel, strides):
  return _conv(x, kernel, strides), (x, kernel)


def _conv_backward(strides, saved, dy):
  x, kernel = saved
  run = functools.partial(_conv_call, x=x, kernel=kernel, strides=strides)
  return (
    run('conv_input_gradient', operands=(dy, kernel), result=(x.shape, x.dtype)),
    run('conv_kernel_gradient', operands=(x, dy), result=(kernel.shape, jnp.float32)),
  )


_conv.defvjp(_conv_forward, _conv_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4))
def normalize(
  x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, relu: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Normalizes each group by its own mean and variance, as `models.norm.normalize`.

  Args:
    x: `[groups, examples, positions, features]`, float32 or bfloat16.
    scale: `[features]`, float32.
    bias: `[features]`, float32.
    epsilon: constant added to the variance.
    relu: whether a ReLU follows.

  Returns:
    The result, of the shape and type of `x`; mean and variance (divided by the count, not by one
    less), `[groups, features]`, float32. No gradient flows through these two.
  """
  return _norm_forward(x, scale, bias, epsilon, relu)[0]


def _norm_name(operation, x, epsilon, relu):
  sizes = (*x.shape, 'relu' if relu else 'none', epsilon)
  return ' '.join(map(str, (operation, TYPES[x.dtype], *sizes)))


def _norm_forward(x, scale, bias, epsilon, relu):
  name = _norm_name('norm_forward', x, epsilon, relu)
  statistics = jax.ShapeDtypeStruct((x.shape[0], x.shape[-1]), jnp.float32)
  results = [jax.ShapeDtypeStruct(x.shape, x.dtype), statistics, statistics]
  if relu:
    shape = (x.shape[0], primitives.mask_bytes(name))
    results.append(jax.ShapeDtypeStruct(shape, jnp.uint8))
  y, mean, var, *mask = custom_call.call(name, (x, scale, bias), results)
  return (y, mean, var), (x, mean, var, scale, *mask)


def _norm_backward(epsilon, relu, saved, gradients):
  x, mean, var, scale, *mask = saved
  results = [jax.ShapeDtypeStruct(v.shape, v.dtype) for v in (x, mean, var)]
  name = _norm_name('norm_backward', x, epsilon, relu)
  operands = (x, gradients[0], mean, var, scale, *mask)
  dx, dscale, dbias = custom_call.call(name, operands, results)
  return dx, dscale.sum(axis=0), dbias.sum(axis=0)


normalize.defvjp(_norm_forward, _norm_backward)
