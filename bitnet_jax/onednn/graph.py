"""What a network does to one image, as a graph of few operations, and its simplification.

A value is `[height, width, channels]`. `Part` and `Join` move nothing: they only say which channels
of which values the next operation reads, see `layout`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np


class Unsupported(Exception):
  """The network does something that is not done here."""


@dataclasses.dataclass(eq=False, kw_only=True)
class Node:
  """An operation and the value that it makes.

  Attributes:
    shape: of the value.
    inputs: values that it reads.
    users: how many read its own.
  """

  shape: tuple[int, int, int]
  inputs: list[Node] = dataclasses.field(default_factory=list)
  users: int = 0

  def __post_init__(self) -> None:
    for node in self.inputs:
      node.users += 1


class Image(Node):
  """The network's input."""


@dataclasses.dataclass(eq=False, kw_only=True)
class Conv(Node):
  """A convolution, padded with half the kernel on every side; a second input is added to it.

  Attributes:
    kernel: `[size, size, in_channels, channels]`, float32.
    bias: `[channels]`, float32.
    strides: in both directions.
    relu: whether a ReLU follows, after the addition.
  """

  kernel: np.ndarray
  bias: np.ndarray
  strides: int
  relu: bool = False


@dataclasses.dataclass(eq=False, kw_only=True)
class Affine(Node):
  """A multiple and an offset of each channel, `[channels]`, float32, then perhaps a ReLU."""

  scale: np.ndarray
  shift: np.ndarray
  relu: bool = False

  @property
  def is_relu(self) -> bool:
    """Whether it is a ReLU alone."""
    return self.relu and bool((self.scale == 1).all()) and not self.shift.any()


@dataclasses.dataclass(eq=False, kw_only=True)
class MaxPool(Node):
  """The greatest value of a square window; what is padded never counts."""

  size: int
  strides: int
  padding: int


@dataclasses.dataclass(eq=False, kw_only=True)
class Part(Node):
  """Some channels of its input, from `start` on."""

  start: int


class Join(Node):
  """The channels of all inputs, one after the other."""


class Sum(Node):
  """The sum of two values."""


@dataclasses.dataclass(eq=False, kw_only=True)
class Network:
  """A whole network.

  Attributes:
    nodes: in the order in which they are computed.
    features: the value whose mean over the positions the classifier reads.
    kernel: of the classifier, `[channels, classes]`, float32.
    bias: of the classifier, `[classes]`, float32.
  """

  nodes: list[Node]
  features: Node
  kernel: np.ndarray
  bias: np.ndarray


def simplify(network: Network) -> Network:
  """The same function with fewer operations.

  Scales, offsets, ReLUs and additions go into the convolution before them where nothing else reads
  its result.

  Raises:
    Unsupported: a sum of two values of which no convolution is the last step.
  """
  instead: dict[Node, Node] = {}
  position = {node: place for place, node in enumerate(network.nodes)}
  kept: list[Node] = []
  for node in network.nodes:
    node.inputs = [instead.get(x, x) for x in node.inputs]
    target = _absorb(node, position)
    if target is None:
      kept.append(node)
      continue
    target.users, instead[node] = node.users, target
  features = instead.get(network.features, network.features)
  return dataclasses.replace(network, nodes=kept, features=features)


def _absorb(node: Node, position: dict[Node, int]) -> Node | None:
  """The earlier node that does `node`'s work too from now on, if one can."""
  if isinstance(node, Affine):
    x = node.inputs[0]
    return x if x.users == 1 and _append(x, node) else None
  if isinstance(node, Sum):
    first, last = sorted(node.inputs, key=lambda x: position[x])
    if not (isinstance(last, Conv) and last.users == 1 and _is_plain(last)) or first is last:
      raise Unsupported('a sum whose second part is no convolution')
    last.inputs.append(first)
    return last
  return None


def _is_plain(conv: Conv) -> bool:
  return len(conv.inputs) == 1 and not conv.relu


def _append(x: Node, after: Affine) -> bool:
  """Lets `x` do what `after` does to its result; False where it cannot."""
  if not isinstance(x, Conv | Affine) or x.relu:
    return False
  if isinstance(x, Conv) and not _is_plain(x) and not after.is_relu:
    return False
  if isinstance(x, Conv):
    x.kernel, x.bias = x.kernel * after.scale, x.bias * after.scale + after.shift
  else:
    x.scale, x.shift = x.scale * after.scale, x.shift * after.scale + after.shift
  x.relu = after.relu
  return True


def leaves(nodes: Sequence[Node]) -> list[Node]:
  """Those that compute something."""
  return [node for node in nodes if not isinstance(node, Part | Join)]
