"""Folds batch norm into the convolutions before it, by following the trace of any network.

The traced program is run again with the weights at hand. A factor or an offset for each channel of
a convolution's result goes into its kernel and its bias; everything else stays as it was traced, so
that no network has to be known here.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from bitnet_jax.models.kernels import XLA, Kernels

Tree = Any

# Primitives that only call another program once: it is followed as if it stood in their place.
_CALLS = ('jit', 'pjit', 'closed_call', 'custom_jvp_call', 'custom_vjp_call')
# What is computed of weights alone. NumPy does it without compiling a program for each.
_WITH_NUMPY: dict[str, Callable[..., np.ndarray]] = {
  'add': lambda a, b: a + b,
  'sub': lambda a, b: a - b,
  'mul': lambda a, b: a * b,
  'rsqrt': lambda a: (1 / np.sqrt(a)).astype(a.dtype),
  'sqrt': np.sqrt,
}


def fold(
  model: nn.Module,
  variables: Tree,
  image_shape: tuple[int, int, int],
  batch_size: int,
  kernels: Kernels = XLA,
) -> tuple[Callable[[list[jax.Array], jax.Array], jax.Array], list[np.ndarray]]:
  """Returns the network in evaluation with fewer operations, and the weights that are left.

  Args:
    model: of `registry.create_model`, with XLA's kernels, whose operations a trace shows.
    variables: 'params' and 'batch_stats'.
    image_shape: (height, width, channels).
    batch_size: images of a call.
    kernels: what computes the folded convolutions.

  Returns:
    A function of weights and images, `[batch_size, height, width, channels]`, float32, that gives
    logits `[batch_size, num_classes]`, to be jitted; and the weights to call it with.
  """
  variables = jax.tree.map(np.asarray, variables)
  images = jax.ShapeDtypeStruct((batch_size, *image_shape), jnp.float32)
  traced = jax.make_jaxpr(functools.partial(model.apply, train=False))(variables, images)
  leaves = jax.tree.leaves(variables)

  def run(images: jax.Array, weights: Iterator[jax.Array] | None) -> tuple[Any, list[np.ndarray]]:
    tracer = _Folder(kernels, weights)
    consts = [np.asarray(const) for const in traced.consts]
    (logits,) = tracer.run(traced.jaxpr, consts, [*leaves, images])
    return tracer.force(logits), tracer.used

  used: list[np.ndarray] = []

  def collect(images: jax.Array) -> jax.Array:
    logits, weights = run(images, None)
    used.extend(weights)
    return logits

  jax.eval_shape(collect, images)
  return lambda weights, images: run(images, iter(weights))[0], used


@dataclasses.dataclass(frozen=True)
class _Convolution:
  """A convolution that is not computed yet, because factors and offsets may follow.

  Attributes:
    x: what it reads.
    kernel: `[size, size, in_features, features]`.
    bias: `[features]`.
    strides: in both directions.
    dtype: of the result, which may differ from that of the computation.
  """

  x: jax.Array
  kernel: np.ndarray
  bias: np.ndarray
  strides: int
  dtype: Any


class _Folder:
  """Runs a traced program whose weights are known.

  Args:
    kernels: what computes the convolutions.
    weights: what stands for the weights that are left, in the order in which they are used; None
      to collect them in `used`.
  """

  def __init__(self, kernels: Kernels, weights: Iterator[jax.Array] | None) -> None:
    self._kernels, self._weights = kernels, weights
    self.used: list[np.ndarray] = []

  def run(self, jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    """Returns the results of a jaxpr: arrays that are known, traced ones, or `_Convolution`."""
    uses = collections.Counter(
      atom for eqn in jaxpr.eqns for atom in eqn.invars if not hasattr(atom, 'val')
    )
    uses.update(atom for atom in jaxpr.outvars if not hasattr(atom, 'val'))
    values: dict[Any, Any] = {}

    def write(variable: Any, value: Any) -> None:
      # What several operations read is computed once.
      values[variable] = self.force(value) if uses[variable] > 1 else value

    def read(atom: Any) -> Any:
      return np.asarray(atom.val) if hasattr(atom, 'val') else values[atom]

    for variable, value in zip(
      [*jaxpr.constvars, *jaxpr.invars], [*consts, *arguments], strict=True
    ):
      write(variable, value)
    for eqn in jaxpr.eqns:
      results = self._apply(eqn, [read(atom) for atom in eqn.invars])
      for variable, value in zip(eqn.outvars, results, strict=True):
        write(variable, value)
    return [read(atom) for atom in jaxpr.outvars]

  def force(self, value: Any) -> Any:
    """Computes a convolution that has not been; gives everything else back."""
    if not isinstance(value, _Convolution):
      return value
    y = self._kernels.convolve(value.x, self._weight(value.kernel), value.strides)
    y = y.astype(value.dtype)
    return y + self._weight(value.bias).astype(value.dtype) if value.bias.any() else y

  def _weight(self, array: np.ndarray) -> Any:
    if array.ndim == 0:
      return array
    self.used.append(array)
    return array if self._weights is None else next(self._weights)

  def _apply(self, eqn: Any, operands: list[Any]) -> Sequence[Any]:
    name = eqn.primitive.name
    if name in _CALLS:
      inner = eqn.params['jaxpr' if 'jaxpr' in eqn.params else 'call_jaxpr']
      return self.run(inner.jaxpr, [np.asarray(const) for const in inner.consts], operands)
    if all(isinstance(operand, np.ndarray) for operand in operands):
      return _compute(eqn, operands)
    folded = self._fold(eqn, operands)
    if folded is not None:
      return [folded]
    operands = [
      self._weight(operand) if isinstance(operand, np.ndarray) else self.force(operand)
      for operand in operands
    ]
    results = eqn.primitive.bind(*operands, **eqn.params)
    return results if eqn.primitive.multiple_results else [results]

  def _fold(self, eqn: Any, operands: list[Any]) -> _Convolution | None:
    """Returns the convolution that does the operation's work too; None where none can."""
    name, x = eqn.primitive.name, operands[0]
    if name == 'conv_general_dilated':
      return _convolution(eqn, *operands)
    if name == 'convert_element_type' and isinstance(x, _Convolution):
      return dataclasses.replace(x, dtype=eqn.params['new_dtype'])
    if name not in ('mul', 'add', 'sub'):
      return None
    other = operands[1]
    if name != 'sub' and isinstance(other, _Convolution):
      x, other = other, x
    if not isinstance(x, _Convolution) or not isinstance(other, np.ndarray):
      return None
    vector = _by_channel(other, len(x.bias))
    if vector is None:
      return None
    if name == 'mul':
      return dataclasses.replace(x, kernel=x.kernel * vector, bias=x.bias * vector)
    return dataclasses.replace(x, bias=x.bias + vector if name == 'add' else x.bias - vector)


def _compute(eqn: Any, operands: list[np.ndarray]) -> Sequence[np.ndarray]:
  """Computes an operation of weights alone."""
  name = eqn.primitive.name
  if name in _WITH_NUMPY:
    return [np.asarray(_WITH_NUMPY[name](*operands))]
  if name == 'convert_element_type':
    return [operands[0].astype(eqn.params['new_dtype'])]
  if name == 'broadcast_in_dim':
    shape, axes = eqn.params['shape'], eqn.params['broadcast_dimensions']
    sides = [operands[0].shape[axes.index(i)] if i in axes else 1 for i in range(len(shape))]
    return [np.broadcast_to(operands[0].reshape(sides), shape)]
  with jax.ensure_compile_time_eval():
    results = eqn.primitive.bind(*operands, **eqn.params)
  return [np.asarray(value) for value in (results if eqn.primitive.multiple_results else [results])]


def _by_channel(array: np.ndarray, features: int) -> np.ndarray | None:
  """Returns what each channel gets, `[features]`; None where positions differ."""
  varies = [
    axis
    for axis, (side, stride) in enumerate(zip(array.shape, array.strides, strict=True))
    if side > 1 and stride
  ]
  if varies not in ([], [array.ndim - 1]):
    return None
  row = array[(0,) * (array.ndim - 1)] if array.ndim else array
  return np.broadcast_to(row, (features,)).astype(np.float32)


def _convolution(eqn: Any, x: Any, kernel: Any) -> _Convolution | None:
  """Returns a convolution of the kind that `models.layers.Conv` makes; None for any other."""
  params = eqn.params
  if isinstance(x, np.ndarray) or not isinstance(kernel, np.ndarray):
    return None
  size, strides = kernel.shape[0], params['window_strides'][0]
  spec = params['dimension_numbers']
  plain = {
    'dimension_numbers': ((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2)),
    'window_strides': (strides, strides),
    'padding': ((size // 2, size // 2),) * 2,
    'lhs_dilation': (1, 1),
    'rhs_dilation': (1, 1),
    'feature_group_count': 1,
    'batch_group_count': 1,
  }
  given = {**params, 'dimension_numbers': tuple(spec) if len(spec) == 3 else spec}
  if any(given[name] != value for name, value in plain.items()) or kernel.shape[1] != size:
    return None
  bias = np.zeros(kernel.shape[-1], np.float32)
  return _Convolution(x, np.asarray(kernel, np.float32), bias, strides, eqn.outvars[0].aval.dtype)
