"""What a block is made of, read off the jaxpr of its forward pass.

Every array in the jaxpr is followed as a list of channel ranges: of the block's input, or of what
a convolution computes. Splits cut the list, concatenations join lists, and all else that keeps the
shape (batch norm, ReLU) passes it on.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bitnet_jax import models
from bitnet_jax.analysis.audit import counts
from bitnet_jax.models import blocks

INPUT = 0  # The block's input; its convolutions count from 1.


class Channels(NamedTuple):
  """Channels `start` to `stop` of what `source` gives."""

  source: int
  start: int
  stop: int

  @property
  def width(self) -> int:
    """How many there are."""
    return self.stop - self.start


class Convolution(NamedTuple):
  """A convolution of a block.

  Attributes:
    features: filters.
    inputs: the channels it reads, in order.
    parameters: weights.
    multiply_adds: for one image.
  """

  features: int
  inputs: tuple[Channels, ...]
  parameters: int
  multiply_adds: int


class Structure(NamedTuple):
  """A block: its convolutions in the order of computation, and the channels of its output."""

  convolutions: tuple[Convolution, ...]
  output: tuple[Channels, ...]


def of_block(kind: str, features: int, tree_depth: int) -> Structure:
  """The structure of a block whose input is as wide as its output.

  Args:
    kind: 'bitnet' for a BitBlock, 'conventional' for a ConvenBlock.
    features: D.
    tree_depth: K.
  """
  network: Any = models.create_model('bitnet', num_classes=1, width=1, tree_depth=1, num_blocks=1)
  make: Any = {'bitnet': blocks.BitBlock, 'conventional': blocks.ConvenBlock}[kind]
  block = make(features, tree_depth, conv=network.conv, norm=network.norm)
  image = jax.ShapeDtypeStruct((1, 8, 8, features), jnp.float32)
  variables = jax.eval_shape(lambda x: block.init(jax.random.key(0), x, train=False), image)
  jaxpr = jax.make_jaxpr(lambda v, x: block.apply(v, x, train=False))(variables, image).jaxpr
  return trace(jaxpr)


def trace(jaxpr: Any) -> Structure:
  """Follows the channels from a jaxpr's last argument, the input, to its only result, the output.

  Raises:
    ValueError: an equation mixes channels in a way that is not known here.
  """
  image = jaxpr.invars[-1]
  known: dict[Any, tuple[Channels, ...]] = {image: (Channels(INPUT, 0, image.aval.shape[-1]),)}
  convolutions: list[Convolution] = []
  _follow(jaxpr, known, convolutions)
  return Structure(tuple(convolutions), known[jaxpr.outvars[0]])


def _follow(
  jaxpr: Any, known: dict[Any, tuple[Channels, ...]], convolutions: list[Convolution]
) -> None:
  """Adds the channels of what a jaxpr computes to `known`, and its convolutions."""
  for eqn in jaxpr.eqns:
    images = [var for var in eqn.invars if not hasattr(var, 'val') and var in known]
    if not images:
      continue  # Of parameters alone.
    if eqn.primitive.name in ('jit', 'pjit'):  # A layer that is traced once for all like it.
      inner = eqn.params['jaxpr'].jaxpr
      within = {
        var: known[outer]
        for var, outer in zip(inner.invars, eqn.invars, strict=True)
        if not hasattr(outer, 'val') and outer in known
      }
      _follow(inner, within, convolutions)
      known.update(zip(eqn.outvars, (within[var] for var in inner.outvars), strict=True))
    elif eqn.primitive.name == 'conv_general_dilated':
      convolutions.append(_convolution(eqn, known[images[0]]))
      known[eqn.outvars[0]] = (Channels(len(convolutions), 0, convolutions[-1].features),)
    elif eqn.primitive.name == 'concatenate':
      known[eqn.outvars[0]] = sum((known[var] for var in images), ())
    elif eqn.primitive.name == 'split':
      start = 0
      for var in eqn.outvars:
        known[var] = _take(known[images[0]], start, start + var.aval.shape[-1])
        start += var.aval.shape[-1]
    elif len(images) == 1 and eqn.outvars[0].aval.shape == images[0].aval.shape:
      known[eqn.outvars[0]] = known[images[0]]
    else:
      raise ValueError(f'cannot follow the channels through {eqn.primitive.name}')


def _convolution(eqn: Any, inputs: tuple[Channels, ...]) -> Convolution:
  kernel = eqn.invars[1].aval
  return Convolution(kernel.shape[-1], inputs, kernel.size, counts.multiply_adds(eqn))


def _take(channels: tuple[Channels, ...], start: int, stop: int) -> tuple[Channels, ...]:
  """The ranges that lie between two positions of a list of ranges."""
  found, position = [], 0
  for part in channels:
    low, high = max(start - position, 0), min(stop - position, part.width)
    if low < high:
      found.append(Channels(part.source, part.start + low, part.start + high))
    position += part.width
  return tuple(found)
