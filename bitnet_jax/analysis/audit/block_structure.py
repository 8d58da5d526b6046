"""Reads off a block's jaxpr which channels its layers pass on, for Figure 1.

Every array in the jaxpr is followed as a list of channel ranges, of the block's input or of a
convolution's output. Splits cut the list, concatenations join lists, and whatever else keeps the
shape (batch norm, ReLU) passes the list on.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from bitnet_jax import models
from bitnet_jax.models import blocks

INPUT = 0  # Source number of the block's input; the convolutions count from 1.


class Channels(NamedTuple):
  """Names the channels from `start` to `stop` of the input or of a convolution, `source`."""

  source: int
  start: int
  stop: int

  @property
  def width(self) -> int:
    """Returns the number of channels."""
    return self.stop - self.start


class Convolution(NamedTuple):
  """Describes a convolution of a block.

  Attributes:
    features: number of filters.
    inputs: the channels that it reads, in order.
    parameters: number of weights.
  """

  features: int
  inputs: tuple[Channels, ...]
  parameters: int


class Structure(NamedTuple):
  """Lists a block's convolutions in the order of computation and the channels of its output."""

  convolutions: tuple[Convolution, ...]
  output: tuple[Channels, ...]


def of_block(kind: str, features: int, tree_depth: int) -> Structure:
  """Returns the structure of a block whose input is as wide as its output.

  Args:
    kind: 'bitnet' for a BitBlock, 'conventional' for a ConvenBlock.
    features: D.
    tree_depth: K.

  Raises:
    ValueError: a BitBlock of `features` channels cannot be halved `tree_depth` times.
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
    ValueError: an equation mixes channels otherwise than by a convolution, split or concatenation.
  """
  image = jaxpr.invars[-1]
  ranges: dict[Any, tuple[Channels, ...]] = {image: (Channels(INPUT, 0, image.aval.shape[-1]),)}
  convolutions: list[Convolution] = []
  _follow(jaxpr, ranges, convolutions)
  return Structure(tuple(convolutions), ranges[jaxpr.outvars[0]])


def _follow(
  jaxpr: Any, ranges: dict[Any, tuple[Channels, ...]], convolutions: list[Convolution]
) -> None:
  """Adds the channel ranges of a jaxpr's variables to `ranges`, and its convolutions."""
  for eqn in jaxpr.eqns:
    images = [var for var in eqn.invars if not hasattr(var, 'val') and var in ranges]
    if not images:
      continue  # The equation reads parameters alone.
    inputs, outputs = ranges[images[0]], eqn.outvars
    if eqn.primitive.name in ('jit', 'pjit'):  # Layers that are alike are traced once.
      inner = eqn.params['jaxpr'].jaxpr
      arguments = zip(inner.invars, eqn.invars, strict=True)
      within = {var: ranges[outer] for var, outer in arguments if outer in images}
      _follow(inner, within, convolutions)
      ranges.update(zip(outputs, (within[var] for var in inner.outvars), strict=True))
    elif eqn.primitive.name == 'conv_general_dilated':
      kernel = eqn.invars[1].aval
      convolutions.append(Convolution(kernel.shape[-1], inputs, kernel.size))
      ranges[outputs[0]] = (Channels(len(convolutions), 0, kernel.shape[-1]),)
    elif eqn.primitive.name == 'concatenate':
      ranges[outputs[0]] = sum((ranges[var] for var in images), ())
    elif eqn.primitive.name == 'split':
      start = 0
      for var in outputs:
        ranges[var] = _take(inputs, start, start + var.aval.shape[-1])
        start += var.aval.shape[-1]
    elif len(images) == 1 and outputs[0].aval.shape == images[0].aval.shape:
      ranges[outputs[0]] = inputs
    else:
      raise ValueError(f'cannot follow the channels through {eqn.primitive.name}')


def _take(channels: tuple[Channels, ...], start: int, stop: int) -> tuple[Channels, ...]:
  """Returns the ranges that lie between two positions of a list of ranges."""
  taken, position = [], 0
  for part in channels:
    low, high = max(start - position, 0), min(stop - position, part.width)
    if low < high:
      taken.append(Channels(part.source, part.start + low, part.start + high))
    position += part.width
  return tuple(taken)
