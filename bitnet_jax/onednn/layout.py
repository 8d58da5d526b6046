"""Where the channels of a network's values lie, so that nothing is copied to split or join them.

Memory of one image holds channels in blocks of as many as a vector register has lanes, `[blocks,
height, width, lanes]`, so that any run of blocks is a value. An operation reads whole blocks (the
kernel has zeros for channels that it does not want) and writes whole blocks. What is joined must
lie in a row: each operation that makes a part of it writes at the one end and the next one at the
other. So level k of a tree, whose halves are right_k and left_k, lies like this, and left_k is
overwritten when level k + 1 has read it:

  level 1                     right_1 | left_1
  level 2   left_2 | right_2 | right_1 | (left_1)
  level 3            right_2 | right_1 | right_3 | left_3

Where a half is less than a block, the next level gets the rest of right_k, which lies in the block
that it reads anyway, and passes it on: a kernel of a one among zeros, and a ReLU that changes
nothing.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from bitnet_jax.onednn import graph
from bitnet_jax.onednn.graph import Unsupported

# A channel: the node that made it and which of its own it is.
Channel = tuple[graph.Node, int]

# Multiply-adds that take as long as one value of what is no convolution, which waits for memory.
_OTHER_WORK = 16


@dataclasses.dataclass(eq=False)
class Buffer:
  """Memory for lanes `[low, high)` of values of one size; it grows at both ends.

  Attributes:
    side: height and width of the values.
    born: first step that writes it.
    dies: last step that reads it.
    held: what lies in each lane that was written; None for zeros.
  """

  side: tuple[int, int]
  born: int
  dies: int = 0
  low: int = 0
  high: int = 0
  held: dict[int, Channel | None] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Span:
  """Lanes `[start, stop)` of a buffer, whole blocks."""

  buffer: Buffer
  start: int
  stop: int

  @property
  def lanes(self) -> int:
    """How many."""
    return self.stop - self.start

  def overlaps(self, other: Span) -> bool:
    """Whether a lane lies in both."""
    apart = self.stop <= other.start or other.stop <= self.start
    return self.buffer is other.buffer and not apart


@dataclasses.dataclass(frozen=True)
class Step:
  """An operation with its places.

  Attributes:
    node: the operation.
    source: what it reads; None for the image.
    target: what it writes.
    inputs: lane of the source of each channel that it wants.
    outputs: lane of the target of each channel that it makes.
    passed: (lane of the source, lane of the target) of what it passes on.
  """

  node: graph.Node
  source: Span | None
  target: Span
  inputs: np.ndarray
  outputs: np.ndarray
  passed: tuple[tuple[int, int], ...] = ()

  @property
  def work(self) -> int:
    """Multiply-adds of one image, as laid out (a filled block counts), or what takes as long."""
    height, width = self.target.buffer.side
    kernel_work = _OTHER_WORK
    if isinstance(self.node, graph.Conv):
      size, _, c, _ = self.node.kernel.shape
      kernel_work = size**2 * (self.source.lanes if self.source else c)
    return height * width * self.target.lanes * kernel_work


@dataclasses.dataclass(eq=False)
class _Run:
  """What was joined so far: `[low, high)` of a buffer, and what is less than a block."""

  buffer: Buffer
  missing: int
  low: int = 0
  high: int = 0
  right: bool = True
  pending: list[Channel] = dataclasses.field(default_factory=list)


def channels(node: graph.Node) -> list[Channel]:
  """What a value consists of."""
  if isinstance(node, graph.Join):
    return [channel for part in node.inputs for channel in channels(part)]
  if isinstance(node, graph.Part):
    return channels(node.inputs[0])[node.start : node.start + node.shape[2]]
  return [(node, index) for index in range(node.shape[2])]


class Layout:
  """The places of everything in a network.

  Args:
    network: simplified.
    block: channels of a block.

  Attributes:
    steps: in order.
    features: place of what the classifier reads.
    feature_lanes: lane of `features` of each channel.

  Raises:
    Unsupported: something would have to be copied.
  """

  def __init__(self, network: graph.Network, block: int) -> None:
    self._block = block
    self._where: dict[Channel, tuple[Buffer, int]] = {}
    nodes = graph.leaves(network.nodes)[1:]  # The first is the image.
    self._last_use = self._find_last_uses(nodes, network.features)
    self._runs = self._find_runs(nodes, network.features)
    self.steps: list[Step] = []
    for node in nodes:
      self.steps.append(self._place(node))
    self.features, self.feature_lanes = self._read(channels(network.features), len(nodes))

  def _find_last_uses(self, nodes: list[graph.Node], features: graph.Node) -> dict[Channel, int]:
    last = {}
    for number, node in enumerate(nodes):
      last.update({channel: number for x in node.inputs for channel in channels(x)})
    last.update(dict.fromkeys(channels(features), len(nodes)))
    return last

  def _find_runs(self, nodes: list[graph.Node], features: graph.Node) -> dict[Channel, _Run]:
    """The run that each channel belongs to which is joined with those of other nodes."""
    runs: dict[Channel, _Run] = {}
    joined = dict.fromkeys(x for x in [*(x for n in nodes for x in n.inputs), features])
    for value in joined:
      parts = channels(value)
      if len({maker for maker, _ in parts}) < 2:
        continue
      if any(channel in runs for channel in parts):
        raise Unsupported('a channel that is joined twice')
      run = _Run(Buffer(value.shape[:2], born=-1), missing=len(parts))
      runs.update(dict.fromkeys(parts, run))
    return runs

  def _place(self, node: graph.Node) -> Step:
    number = len(self.steps)
    wanted = channels(node.inputs[0])
    made = channels(node)
    run = next((self._runs[channel] for channel in made if channel in self._runs), None)
    if isinstance(node.inputs[0], graph.Image):
      source, inputs = None, np.arange(len(wanted))
    else:
      source, inputs = self._read([*wanted, *(run.pending if run else [])], number)
    if len(node.inputs) > 1:
      target, outputs = self._add_to(node, made, number)
      if source and source.overlaps(target):
        raise Unsupported('a sum that would overwrite what its convolution reads')
      return Step(node, source, target, inputs, outputs)
    passed = list(zip(run.pending, inputs[len(wanted) :], strict=True)) if run else []
    if not isinstance(node, graph.Conv) and not passed:
      target, lanes = self._mirror(node, source, inputs, number)
    elif run is not None:
      target, lanes = self._extend(run, node, made, number)
    else:
      target, lanes = self._fresh(node, made, number)
    if source and source.overlaps(target):
      raise Unsupported('an operation that would read what it writes')
    self._check_passed(node, passed)
    return Step(
      node,
      source,
      target,
      inputs[: len(wanted)],
      np.array([lanes[channel] for channel in made]),
      tuple((int(lane), lanes[channel]) for channel, lane in passed),
    )

  def _check_passed(self, node: graph.Node, passed: list[tuple[Channel, int]]) -> None:
    if not passed:
      return
    rectified = all(getattr(maker, 'relu', False) for (maker, _), _ in passed)
    if not isinstance(node, graph.Conv) or node.strides != 1 or (node.relu and not rectified):
      raise Unsupported('channels that cannot be passed on')

  def _read(self, wanted: list[Channel], number: int) -> tuple[Span, np.ndarray]:
    """The blocks that hold these channels, and the lane of each within them."""
    if any(channel not in self._where for channel in wanted):
      raise Unsupported('an operation other than a convolution of the image')
    places = [self._where[channel] for channel in wanted]
    buffer, lanes = places[0][0], np.array([lane for _, lane in places])
    if any(other is not buffer for other, _ in places):
      raise Unsupported('an operation that reads from two places')
    start = int(lanes.min()) // self._block * self._block
    stop = -(-int(lanes.max() + 1) // self._block) * self._block
    if any(lane not in buffer.held for lane in range(start, stop)):
      raise Unsupported('an operation that would read what nothing has written')
    buffer.dies = number
    return Span(buffer, start, stop), lanes - start

  def _write(
    self, buffer: Buffer, start: int, held: list[Channel | None], number: int
  ) -> tuple[Span, dict[Channel, int]]:
    """Notes that these lie in a row now; also the lane of each in the span."""
    stop = start + len(held)
    for lane, channel in enumerate(held, start):
      old = buffer.held.get(lane)
      if old and self._where[old] == (buffer, lane) and self._last_use.get(old, -1) > number:
        raise Unsupported('an operation that would overwrite what is still needed')
      buffer.held[lane] = channel
      if channel:
        self._where[channel] = (buffer, lane)
    buffer.low, buffer.high = min(buffer.low, start), max(buffer.high, stop)
    if buffer.born < 0:
      buffer.born = number
    buffer.dies = max(buffer.dies, number)
    lanes = {channel: lane for lane, channel in enumerate(held) if channel}
    return Span(buffer, start, stop), lanes

  def _padded(self, held: list[Channel]) -> list[Channel | None]:
    return [*held, *[None] * (-len(held) % self._block)]

  def _fresh(
    self, node: graph.Node, made: list[Channel], number: int
  ) -> tuple[Span, dict[Channel, int]]:
    return self._write(Buffer(node.shape[:2], born=number), 0, self._padded(made), number)

  def _mirror(
    self, node: graph.Node, source: Span | None, inputs: np.ndarray, number: int
  ) -> tuple[Span, dict[Channel, int]]:
    """A value whose channels lie as those of the source do."""
    if source is None or any(channel in self._runs for channel in channels(node)):
      raise Unsupported('a join of what is no convolution')
    held: list[Channel | None] = [None] * source.lanes
    for index, lane in enumerate(inputs):
      held[lane] = (node, index)
    return self._write(Buffer(node.shape[:2], born=number), 0, held, number)

  def _extend(
    self, run: _Run, node: graph.Node, made: list[Channel], number: int
  ) -> tuple[Span, dict[Channel, int]]:
    """Writes at the one end of a run, what does not belong to it outermost."""
    own = [channel for channel in made if self._runs.get(channel) is run]
    run.missing -= len(own)
    kept = [*run.pending, *own]
    rest = [channel for channel in made if channel not in set(own)]
    full = len(kept) if not run.missing else len(kept) // self._block * self._block
    run.pending = kept[full:]
    full = -(-full // self._block) * self._block
    held = self._padded([*kept, *rest])
    run.right = not run.right
    if not run.right:  # The first one.
      place = run.high
      run.high += full
      return self._write(run.buffer, place, held, number)
    run.low -= full
    return self._write(run.buffer, run.low + full - len(held), held[::-1], number)

  def _add_to(self, node: graph.Node, made: list[Channel], number: int) -> tuple[Span, np.ndarray]:
    """The place of what is added to, which the sum takes."""
    added = channels(node.inputs[1])
    span, lanes = self._read(added, number)
    if any(channel in self._runs for channel in [*made, *added]):
      raise Unsupported('a sum with or of a part')
    held: list[Channel | None] = [None] * span.lanes
    for channel, lane in zip(made, lanes, strict=True):
      held[lane] = channel
    return self._write(span.buffer, span.start, held, number)[0], lanes
