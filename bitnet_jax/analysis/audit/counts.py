"""Parameters and multiply-adds of the networks, from the very modules that train.

A network is traced, never run: its parameters are the shapes that `jax.eval_shape` gives its
initialization, its multiply-adds a walk over the jaxpr of its forward pass. Convolutions and the
classifier count, nothing else; a tap that falls on padding counts like any other, as in the
paper's figures (XLA's own cost analysis leaves such taps out).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from bitnet_jax import models
from bitnet_jax.analysis.audit.networks import Convention, Network


class Counts(NamedTuple):
  """Sizes of a network, with the head of its tables.

  Attributes:
    depth: weighted layers on the longest path.
    parameters: of everything but batch norm and head.
    batch_norm: scales and biases.
    head_per_class: of the head, for each logit.
    convolutions: multiply-adds of one image.
    classifier_per_class: multiply-adds for each logit.
    output_sizes: sides of the feature maps of the convolutions, each once, in order.
  """

  depth: int
  parameters: int
  batch_norm: int
  head_per_class: int
  convolutions: int
  classifier_per_class: int
  output_sizes: tuple[int, ...]

  def of(self, quantity: str, convention: Convention) -> int:
    """A quantity ('depth', 'parameters', 'multiply_adds'); projections are as they were traced."""
    if quantity == 'depth':
      return self.depth
    if quantity == 'multiply_adds':
      return self.convolutions + convention.classes * self.classifier_per_class
    norm = self.batch_norm if convention.batch_norm else 0
    return self.parameters + norm + convention.classes * self.head_per_class


def count(network: Network, quantity: str, convention: Convention) -> int:
  """A quantity of a network under a convention."""
  return trace(network, convention.projection).of(quantity, convention)


@functools.cache
def trace(network: Network, projection: int = 1) -> Counts:
  """Traces a network.

  Args:
    network: which.
    projection: kernel of the projections: 1 as trained, 3 for what the paper seems to count.
  """
  model: Any = create(network)
  if projection != 1:
    model = model.clone(conv=functools.partial(_widen_projection, model.conv, projection))
  side = network.image_size
  image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
  variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), image)
  jaxpr = jax.make_jaxpr(lambda v, x: model.apply(v, x))(variables, image)
  work = [(eqn, multiply_adds(eqn)) for eqn in equations(jaxpr.jaxpr)]
  head = sum(leaf.size for leaf in jax.tree.leaves(variables['params']['head']))
  norm = _batch_norm_size(variables['params'])
  total = sum(leaf.size for leaf in jax.tree.leaves(variables['params']))
  sides = [eqn.outvars[0].aval.shape[1] for eqn, _ in work if _is_convolution(eqn)]
  return Counts(
    depth=model.depth,
    parameters=total - norm - head,
    batch_norm=norm,
    head_per_class=head // network.classes,
    convolutions=sum(n for eqn, n in work if _is_convolution(eqn)),
    classifier_per_class=sum(n for eqn, n in work if not _is_convolution(eqn)) // network.classes,
    output_sizes=tuple(side for side, _ in itertools.groupby(sides)),
  )


def create(network: Network) -> nn.Module:
  """The module of a network, with the head of its tables."""
  return models.create_model(
    network.name,
    num_classes=network.classes,
    width=network.width,
    tree_depth=network.tree_depth,
    num_blocks=network.num_blocks,
    width_factor=network.width_factor,
  )


def _widen_projection(
  conv: Any, projection: int, features: int, *, kernel_size: int = 3, **settings: Any
) -> nn.Module:
  """Makes a convolution, a projection's (the only ones with a 1x1 kernel) with a larger kernel."""
  return conv(features, kernel_size=projection if kernel_size == 1 else kernel_size, **settings)


def _batch_norm_size(params: Any) -> int:
  leaves = jax.tree_util.tree_leaves_with_path(params)
  return sum(leaf.size for path, leaf in leaves if path[-1].key in ('scale', 'bias')) - sum(
    leaf.size for path, leaf in leaves if path[0].key == 'head' and path[-1].key == 'bias'
  )


def _is_convolution(eqn: Any) -> bool:
  return eqn.primitive.name == 'conv_general_dilated'


def equations(jaxpr: Any) -> Iterator[Any]:
  """Every equation of a jaxpr that holds no other, those of its inner jaxprs in their place.

  Raises:
    ValueError: there is a loop, whose equations would have to count several times.
  """
  for eqn in jaxpr.eqns:
    inner = [jax_value for value in eqn.params.values() for jax_value in _jaxprs(value)]
    if inner and eqn.primitive.name in ('scan', 'while', 'cond'):
      raise ValueError(f'cannot count the equations of a {eqn.primitive.name}')
    if not inner:
      yield eqn
    for sub in inner:
      yield from equations(sub)


def _jaxprs(value: Any) -> Iterator[Any]:
  value = getattr(value, 'jaxpr', value)  # A closed jaxpr holds an open one.
  if hasattr(value, 'eqns'):
    yield value


def multiply_adds(eqn: Any) -> int:
  """Multiply-adds of an equation: of a convolution or a matrix product, else 0.

  A convolution takes, for each of its outputs, one for every tap of the kernel and every input
  channel that the filter sees.
  """
  if _is_convolution(eqn):
    kernel = eqn.invars[1].aval.shape
    spec = eqn.params['dimension_numbers'].rhs_spec  # (features, input channels, spatial...)
    return math.prod(eqn.outvars[0].aval.shape) * math.prod(kernel[axis] for axis in spec[1:])
  if eqn.primitive.name == 'dot_general':
    (contracted, _), _ = eqn.params['dimension_numbers']
    left = eqn.invars[0].aval.shape
    return math.prod(eqn.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)
  return 0
