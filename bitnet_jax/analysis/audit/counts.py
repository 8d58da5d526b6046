"""Counts parameters and multiply-adds of the networks from the modules that train.

A network is traced, never run: `jax.eval_shape` gives the shapes of its parameters, and a walk over
the jaxpr of its forward pass gives its multiply-adds. Only convolutions and the classifier count. A
tap that falls on padding counts like any other, as in the paper's figures; XLA's own cost analysis
leaves such taps out.
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
  """Holds the sizes of a network, with the head of its tables.

  Attributes:
    depth: weighted layers on the longest path.
    parameters: parameters outside batch norm and the head.
    batch_norm: scales and biases of batch norm.
    head_per_class: parameters of the head for each logit.
    convolutions: multiply-adds of the convolutions for one image.
    classifier_per_class: multiply-adds of the classifier for each logit.
    output_sizes: sides of the feature maps of the convolutions in pixels, each once, in order.
  """

  depth: int
  parameters: int
  batch_norm: int
  head_per_class: int
  convolutions: int
  classifier_per_class: int
  output_sizes: tuple[int, ...]

  def of(self, quantity: str, convention: Convention) -> int:
    """Returns 'depth', 'parameters' or 'multiply_adds'; the projections stay as traced."""
    if quantity == 'depth':
      return self.depth
    if quantity == 'multiply_adds':
      return self.convolutions + convention.classes * self.classifier_per_class
    norm = self.batch_norm if convention.batch_norm else 0
    return self.parameters + norm + convention.classes * self.head_per_class


def count(network: Network, quantity: str, convention: Convention) -> int:
  """Returns a quantity of a network ('depth', 'parameters', 'multiply_adds') by a convention."""
  return trace(network, convention.projection).of(quantity, convention)


@functools.cache
def trace(network: Network, projection: int = 1) -> Counts:
  """Traces a network and returns its sizes.

  Args:
    network: the network.
    projection: kernel size of the projections: 1 as trained, 3 as the paper seems to count.
  """
  model: Any = create(network)
  if projection != 1:
    model = model.clone(conv=functools.partial(_widen_projection, model.conv, projection))
  side = network.image_size
  image = jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)
  variables = jax.eval_shape(lambda x: model.init(jax.random.key(0), x), image)
  eqns = list(equations(jax.make_jaxpr(model.apply)(variables, image).jaxpr))
  convolutions = [eqn for eqn in eqns if _is_convolution(eqn)]
  work = sum(map(multiply_adds, convolutions))
  params = dict(variables['params'])
  head = sum(leaf.size for leaf in jax.tree.leaves(params.pop('head')))
  leaves = jax.tree_util.tree_leaves_with_path(params)
  norm = sum(leaf.size for path, leaf in leaves if path[-1].key in ('scale', 'bias'))
  sides = [eqn.outvars[0].aval.shape[1] for eqn in convolutions]
  return Counts(
    depth=model.depth,
    parameters=sum(leaf.size for _, leaf in leaves) - norm,
    batch_norm=norm,
    head_per_class=head // network.classes,
    convolutions=work,
    classifier_per_class=(sum(map(multiply_adds, eqns)) - work) // network.classes,
    output_sizes=tuple(side for side, _ in itertools.groupby(sides)),
  )


def create(network: Network) -> nn.Module:
  """Returns the module of a network, with the head of its tables."""
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
  """Makes a convolution; a projection, which alone has a 1x1 kernel, gets a larger one."""
  return conv(features, kernel_size=projection if kernel_size == 1 else kernel_size, **settings)


def _is_convolution(eqn: Any) -> bool:
  return eqn.primitive.name == 'conv_general_dilated'


def equations(jaxpr: Any) -> Iterator[Any]:
  """Yields every equation of a jaxpr; inner jaxprs are replaced by their own equations.

  Raises:
    ValueError: the jaxpr has a loop or a branch, whose equations run another number of times.
  """
  for eqn in jaxpr.eqns:
    values = [getattr(value, 'jaxpr', value) for value in eqn.params.values()]  # Opens closed ones.
    inner = [value for value in values if hasattr(value, 'eqns')]
    if inner and eqn.primitive.name in ('scan', 'while', 'cond'):
      raise ValueError(f'cannot count the equations of a {eqn.primitive.name}')
    if not inner:
      yield eqn
    for sub in inner:
      yield from equations(sub)


def multiply_adds(eqn: Any) -> int:
  """Returns the multiply-adds of a convolution or a matrix product, and 0 for other equations.

  A convolution takes, for each of its outputs, one multiply-add for every tap of the kernel and
  every input channel that the filter sees.
  """
  outputs = math.prod(eqn.outvars[0].aval.shape)
  if _is_convolution(eqn):
    kernel = eqn.invars[1].aval.shape
    spec = eqn.params['dimension_numbers'].rhs_spec  # (features, input channels, spatial...)
    return outputs * math.prod(kernel[axis] for axis in spec[1:])
  if eqn.primitive.name == 'dot_general':
    (contracted, _), _ = eqn.params['dimension_numbers']
    return outputs * math.prod(eqn.invars[0].aval.shape[axis] for axis in contracted)
  return 0
