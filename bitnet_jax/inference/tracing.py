"""From a network of `registry.create_model` to the graph that oneDNN runs.

The graph is read from the jaxpr of the very module that trains, so that the two cannot drift apart:
what this does not know ends in `Unsupported`, and XLA runs the network instead.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from bitnet_jax.onednn import graph
from bitnet_jax.onednn.graph import Unsupported

Tree = Any
# What only calls another jaxpr, once.
_CALLS = ('jit', 'pjit', 'closed_call', 'custom_jvp_call', 'custom_vjp_call')
# In the trace: an array that does not depend on the image, a value that does, or the head's.
Known = np.ndarray


@dataclasses.dataclass(frozen=True)
class Head:
  """The mean over the positions, and what the classifier makes of it.

  Attributes:
    features: whose mean it is.
    share: of the sum over the positions.
    kernel: `[channels, classes]`; None before the product.
    bias: `[classes]`.
  """

  features: graph.Node
  share: float = 1.0
  kernel: np.ndarray | None = None
  bias: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(1, np.float32))


def trace(model: nn.Module, variables: Tree, image_shape: tuple[int, int, int]) -> graph.Network:
  """The graph of a network in evaluation, simplified.

  Args:
    model: of `registry.create_model`.
    variables: 'params' and 'batch_stats'.
    image_shape: `[height, width, channels]`.

  Raises:
    Unsupported: it does something that the graph has no word for.
  """
  # oneDNN's calls say nothing of what they do.
  makers: dict[str, Any] = {
    name: functools.partial(getattr(model, name), kernels='xla') for name in ('conv', 'norm')
  }
  model = model.clone(**makers)
  variables = jax.tree.map(np.asarray, variables)
  image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
  closed = jax.make_jaxpr(functools.partial(model.apply, train=False))(variables, image)
  tracer = _Tracer()
  start = graph.Image(shape=image_shape)
  tracer.nodes.append(start)
  known = [*jax.tree.leaves(variables), start]
  head = tracer.run(closed.jaxpr, [np.asarray(const) for const in closed.consts], known)[0]
  if not isinstance(head, Head) or head.kernel is None:
    raise Unsupported('a network that does not end in a classifier')
  mean = head.features.shape[0] * head.features.shape[1] * head.share
  network = graph.Network(
    nodes=tracer.nodes, features=head.features, kernel=head.kernel * mean, bias=head.bias
  )
  head.features.users += 1
  return graph.simplify(network)


class _Tracer:
  """Evaluates a jaxpr: known arrays with NumPy, the rest into nodes."""

  def __init__(self) -> None:
    self.nodes: list[graph.Node] = []

  def run(self, jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    """Results of a jaxpr."""
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *arguments], strict=True))

    def read(atom: Any) -> Any:
      return np.asarray(atom.val) if hasattr(atom, 'val') else values[atom]

    for equation in jaxpr.eqns:
      operands = [read(atom) for atom in equation.invars]
      values.update(zip(equation.outvars, self._apply(equation, operands), strict=True))
    return [read(atom) for atom in jaxpr.outvars]

  def _apply(self, equation: Any, operands: Sequence[Any]) -> Sequence[Any]:
    name, params = equation.primitive.name, equation.params
    if name in _CALLS:
      inner = params['jaxpr' if 'jaxpr' in params else 'call_jaxpr']
      return self.run(inner.jaxpr, [np.asarray(const) for const in inner.consts], operands)
    if name == 'convert_element_type':
      return operands  # Rounding is the kernels' part.
    if all(isinstance(operand, Known) for operand in operands):
      rules: dict[str, Callable[..., Any]] = _KNOWN
    else:
      rules = _RULES
    if name not in rules:
      raise Unsupported(f'the operation {name}')
    results = rules[name](*operands, params)
    results = results if isinstance(results, list) else [results]
    self.nodes += [value for value in results if isinstance(value, graph.Node)]
    return results


def _broadcast(x: Known, params: dict[str, Any]) -> Known:
  shape, axes = params['shape'], params['broadcast_dimensions']
  expanded = [x.shape[axes.index(i)] if i in axes else 1 for i in range(len(shape))]
  return np.broadcast_to(x.reshape(expanded), shape)


_KNOWN: dict[str, Callable[..., Any]] = {
  'add': lambda a, b, _: a + b,
  'sub': lambda a, b, _: a - b,
  'mul': lambda a, b, _: a * b,
  'rsqrt': lambda a, _: (1 / np.sqrt(a)).astype(a.dtype),
  'broadcast_in_dim': _broadcast,
}


def _by_channel(array: Known, node: graph.Node) -> np.ndarray:
  """A factor or offset of each channel, `[channels]`."""
  if any(side != 1 for side in array.shape[:-1]):
    raise Unsupported(f'a factor or offset of shape {array.shape}')
  return np.broadcast_to(array.reshape(-1), node.shape[-1:]).astype(np.float32)


def _affine(x: Any, scale: Any = 1.0, shift: Any = 0.0, relu: bool = False) -> graph.Affine:
  if not isinstance(x, graph.Node):
    raise Unsupported('an operation on what was pooled')
  vectors = [_by_channel(np.asarray(value), x) for value in (scale, shift)]
  return graph.Affine(shape=x.shape, inputs=[x], scale=vectors[0], shift=vectors[1], relu=relu)


def _mul(a: Any, b: Any, _: Any) -> graph.Node:
  x, scale = (b, a) if isinstance(a, Known) else (a, b)
  if not isinstance(x, graph.Node) or not isinstance(scale, Known):
    raise Unsupported('a product of two values')
  return _affine(x, scale=scale)


def _add(a: Any, b: Any, _: Any) -> graph.Node | Head:
  x, shift = (b, a) if isinstance(a, Known) else (a, b)
  if isinstance(x, Head) and isinstance(shift, Known) and x.kernel is not None:
    return dataclasses.replace(x, bias=x.bias + shift.reshape(-1))
  if isinstance(x, graph.Node) and isinstance(shift, graph.Node) and x.shape == shift.shape:
    return graph.Sum(shape=x.shape, inputs=[x, shift])
  if not isinstance(shift, Known):
    raise Unsupported('a sum of values of different shapes')
  return _affine(x, shift=shift)


def _max(x: graph.Node, floor: Known, _: Any) -> graph.Node:
  if not isinstance(floor, Known) or floor.any():
    raise Unsupported('a maximum that is no ReLU')
  return _affine(x, relu=True)


def _conv(x: graph.Node, kernel: Known, params: dict[str, Any]) -> graph.Node:
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
  given = {**params, 'dimension_numbers': (spec.lhs_spec, spec.rhs_spec, spec.out_spec)}
  if any(given[name] != value for name, value in plain.items()) or kernel.shape[1] != size:
    raise Unsupported(f'a convolution with {params}')
  shape = (*(-(-side // strides) for side in x.shape[:2]), kernel.shape[-1])
  bias = np.zeros(shape[-1], np.float32)
  kernel = np.asarray(kernel, np.float32)
  return graph.Conv(shape=shape, inputs=[x], kernel=kernel, bias=bias, strides=strides)


def _max_pool(x: graph.Node, params: dict[str, Any]) -> graph.Node:
  size, strides = params['window_dimensions'][1], params['window_strides'][1]
  padding = params['padding'][1][0]
  plain = {
    'window_dimensions': (1, size, size, 1),
    'window_strides': (1, strides, strides, 1),
    'padding': ((0, 0), (padding, padding), (padding, padding), (0, 0)),
    'base_dilation': (1,) * 4,
    'window_dilation': (1,) * 4,
  }
  if any(tuple(params[name]) != value for name, value in plain.items()):
    raise Unsupported(f'max pooling with {params}')
  sides = [(side + 2 * padding - size) // strides + 1 for side in x.shape[:2]]
  shape = (sides[0], sides[1], x.shape[2])
  return graph.MaxPool(shape=shape, inputs=[x], size=size, strides=strides, padding=padding)


def _split(x: graph.Node, params: dict[str, Any]) -> list[graph.Node]:
  if params['axis'] != 3:
    raise Unsupported('a split of anything but channels')
  starts = np.cumsum([0, *params['sizes']])
  return [
    graph.Part(shape=(*x.shape[:2], int(size)), inputs=[x], start=int(start))
    for start, size in zip(starts, params['sizes'], strict=False)
  ]


def _concatenate(*arguments: Any) -> graph.Node:
  *parts, params = arguments
  if params['dimension'] != 3 or not all(isinstance(part, graph.Node) for part in parts):
    raise Unsupported('a concatenation of anything but channels')
  channels = sum(part.shape[2] for part in parts)
  return graph.Join(shape=(*parts[0].shape[:2], channels), inputs=list(parts))


def _reduce_sum(x: graph.Node, params: dict[str, Any]) -> Head:
  if not isinstance(x, graph.Node) or tuple(params['axes']) != (1, 2):
    raise Unsupported('a sum over anything but positions')
  return Head(x)


def _div(x: Head, divisor: Known, _: Any) -> Head:
  if not isinstance(x, Head) or not isinstance(divisor, Known) or divisor.size != 1:
    raise Unsupported('a division that is no mean')
  if x.kernel is not None:
    raise Unsupported('a division after the classifier')
  return dataclasses.replace(x, share=x.share / float(divisor.item()))


def _dot(x: Head, kernel: Known, params: dict[str, Any]) -> Head:
  if not isinstance(x, Head) or params['dimension_numbers'] != (((1,), (0,)), ((), ())):
    raise Unsupported('a product that is no classifier')
  if x.kernel is not None or not isinstance(kernel, Known):
    raise Unsupported('a product after the classifier, or of two values')
  kernel = np.asarray(kernel, np.float32)
  return dataclasses.replace(x, kernel=kernel, bias=np.zeros(kernel.shape[1], np.float32))


_RULES: dict[str, Callable[..., Any]] = {
  'add': _add,
  'mul': _mul,
  'max': _max,
  'conv_general_dilated': _conv,
  'reduce_window_max': _max_pool,
  'split': _split,
  'concatenate': _concatenate,
  'reduce_sum': _reduce_sum,
  'div': _div,
  'dot_general': _dot,
}
