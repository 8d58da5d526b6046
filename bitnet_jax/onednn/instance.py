"""A network made of primitives, with memory for one image.

Two threads need two instances; they share the packed kernels.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence

import numpy as np

from bitnet_jax.onednn import graph
from bitnet_jax.onednn import library as dnn
from bitnet_jax.onednn.layout import Buffer, Layout, Span, Step
from bitnet_jax.onednn.library import Handle
from bitnet_jax.onednn.weights import Weights, spread, spread_kernel

_BYTES = {'f32': 4, 'bf16': 2}
_PAGE = 4096


def arrange(buffers: Sequence[Buffer], bytes_of: Callable[[Buffer], int]) -> dict[Buffer, int]:
  """Offsets such that what is alive at the same time lies apart, each as low as can be."""
  offsets: dict[Buffer, int] = {}
  for buffer in sorted(buffers, key=lambda b: b.born):
    taken = sorted(
      (offset, offset + bytes_of(other))
      for other, offset in offsets.items()
      if other.dies >= buffer.born and other.born <= buffer.dies
    )
    place = 0
    for start, stop in taken:
      if place + bytes_of(buffer) <= start:
        break
      place = max(place, -(-stop // _PAGE) * _PAGE)
    offsets[buffer] = place
  return offsets


class Instance:
  """Primitives, in order, and their memory.

  Args:
    network: simplified.
    layout: of the network.
    dtype: 'f32' or 'bf16'.
    block: channels of a block.
    weights: shared by the instances of a network.
    threads: how many each operation uses, by its multiply-adds.

  Attributes:
    stream: the queue of its primitives.
    stretches: number of threads and the primitives that use so many, in order.
  """

  def __init__(
    self,
    network: graph.Network,
    layout: Layout,
    *,
    dtype: str,
    block: int,
    weights: Weights,
    threads: Callable[[int], int],
  ) -> None:
    self._dtype, self._block, self._weights = dtype, block, weights
    self.stream = dnn.stream()
    self.stretches: list[tuple[int, list[dnn.Primitive]]] = []
    self._reserve(layout)
    self._take_image(network.nodes[0].shape)
    for number, step in enumerate(layout.steps):
      self._choose(threads(step.work))
      self._add_step(number, step)
    self._choose(1)
    self._add_mean(layout.features)

  @property
  def size(self) -> int:
    """Bytes of its activations."""
    return self._arena.nbytes

  def take(self, image: int, result: int) -> None:
    """Says where the image lies and where its means go, as addresses."""
    dnn.set_data_handle(self._image, image)
    dnn.set_data_handle(self._result, result)

  def _choose(self, threads: int) -> None:
    dnn.set_threads(threads)
    if not self.stretches or self.stretches[-1][0] != threads:
      self.stretches.append((threads, []))

  def _add(self, description: Handle, arguments: dict[int, Handle]) -> None:
    self.stretches[-1][1].append(dnn.Primitive(description, arguments))

  def _reserve(self, layout: Layout) -> None:
    """Makes memory for all buffers; those that do not live at the same time share it."""

    def size(buffer: Buffer) -> int:
      lanes = buffer.high - buffer.low
      return buffer.side[0] * buffer.side[1] * lanes * _BYTES[self._dtype]

    buffers = list(dict.fromkeys(step.target.buffer for step in layout.steps))
    offsets = arrange(buffers, size)
    total = max(offsets[buffer] + size(buffer) for buffer in buffers)
    self._arena = np.zeros(total + _PAGE, np.uint8)
    first = -(-self._arena.ctypes.data // _PAGE) * _PAGE
    self._addresses = {buffer: first + offset for buffer, offset in offsets.items()}

  def _take_image(self, shape: tuple[int, int, int]) -> None:
    height, width, c = shape
    given, planar = (
      dnn.images((1, *shape), 'f32'),
      dnn.planar_image(c, height, width, self._dtype),
    )
    self._image, self._planar = dnn.memory(given), dnn.AlignedBuffer(planar)
    self._planar_layout = planar
    self._choose(1)
    self._add(dnn.reorder(given, planar), {dnn.SRC: self._image, dnn.DST: self._planar.memory})

  def _memory(self, span: Span) -> tuple[Handle, Handle]:
    """Layout of a span and memory there."""
    buffer = span.buffer
    layout = dnn.blocked_image(span.lanes, *buffer.side, self._dtype, self._block)
    memory = dnn.memory(layout)
    before = (span.start - buffer.low) * buffer.side[0] * buffer.side[1] * _BYTES[self._dtype]
    dnn.set_data_handle(memory, self._addresses[buffer] + before)
    return layout, memory

  def _add_step(self, number: int, step: Step) -> None:
    source = (
      self._memory(step.source) if step.source else (self._planar_layout, self._planar.memory)
    )
    target = self._memory(step.target)
    if isinstance(step.node, graph.Conv):
      self._add_conv(number, step, step.node, source, target)
    elif isinstance(step.node, graph.Affine):
      self._add_affine(number, step, step.node, source, target)
    else:
      assert isinstance(step.node, graph.MaxPool)
      node = step.node
      description = _pooling(
        dnn.MAX_POOLING, source[0], target[0], (node.size,) * 2, node.strides, node.padding
      )
      self._add(description, {dnn.SRC: source[1], dnn.DST: target[1]})

  def _add_conv(
    self,
    number: int,
    step: Step,
    conv: graph.Conv,
    source: tuple[Handle, Handle],
    target: tuple[Handle, Handle],
  ) -> None:
    size, _, c, _ = conv.kernel.shape
    lanes = (step.source.lanes if step.source else c, step.target.lanes)
    padding = dnn.dims((size // 2,) * 2)
    description = dnn.create(
      'convolution_forward_primitive_desc_create',
      *(dnn.engine(), dnn.FORWARD_INFERENCE, dnn.DIRECT),
      *(source[0], dnn.any_kernels(size, *lanes, self._dtype), dnn.vector(lanes[1]), target[0]),
      *(dnn.dims((conv.strides,) * 2), dnn.dims((0, 0)), padding, padding),
      dnn.attributes(add=len(conv.inputs) > 1, relu=conv.relu),
    )
    layout = dnn.query(description, dnn.WEIGHTS)
    kernel = self._weights.kernel(number, layout, lambda: spread_kernel(step, conv, lanes))
    [bias] = self._weights.vectors(number, lambda: [spread(step, conv.bias)])
    places = {dnn.SRC: source[1], dnn.WEIGHTS: kernel, dnn.BIAS: bias, dnn.DST: target[1]}
    self._add(description, places)

  def _add_affine(
    self,
    number: int,
    step: Step,
    node: graph.Affine,
    source: tuple[Handle, Handle],
    target: tuple[Handle, Handle],
  ) -> None:
    """As a batch norm with a mean of 0 and a variance of 1."""
    flags = dnn.USE_GLOBAL_STATS | dnn.USE_SCALE | dnn.USE_SHIFT
    flags |= dnn.FUSE_RELU if node.relu else 0
    description = dnn.create(
      'batch_normalization_forward_primitive_desc_create',
      *(dnn.engine(), dnn.FORWARD_INFERENCE, source[0], target[0]),
      *(ctypes.c_float(0), flags, dnn.attributes()),
    )
    names = (dnn.MEAN, dnn.VARIANCE, dnn.SCALE, dnn.SHIFT)
    lanes = step.target.lanes
    vectors = self._weights.vectors(
      number,
      lambda: [
        np.zeros(lanes),
        np.ones(lanes),
        spread(step, node.scale),
        spread(step, node.shift),
      ],
    )
    places = dict(zip(names, vectors, strict=True))
    self._add(description, {dnn.SRC: source[1], dnn.DST: target[1], **places})

  def _add_mean(self, features: Span) -> None:
    side = features.buffer.side
    layout, memory = self._memory(features)
    if self._dtype != 'f32':
      wide = dnn.blocked_image(features.lanes, *side, 'f32', self._block)
      self._wide = dnn.AlignedBuffer(wide)
      self._add(dnn.reorder(layout, wide), {dnn.SRC: memory, dnn.DST: self._wide.memory})
      layout, memory = wide, self._wide.memory
    means = dnn.blocked_image(features.lanes, 1, 1, 'f32', self._block)
    self._result = dnn.memory(means)
    description = _pooling(dnn.MEAN_POOLING, layout, means, side, 1, 0)
    self._add(description, {dnn.SRC: memory, dnn.DST: self._result})


def run(instances: Sequence[Instance], images: Sequence[int], results: Sequence[int]) -> None:
  """Runs one network on several images, each operation on all of them before the next.

  A kernel that has left the cache is read once for all.

  Args:
    instances: of the network, one for each image.
    images: address of each, `[height, width, channels]`, float32.
    results: where the mean over positions of each goes, `[lanes]`, float32.
  """
  for instance, image, result in zip(instances, images, results, strict=True):
    instance.take(image, result)
  for stretches in zip(*[instance.stretches for instance in instances], strict=True):
    dnn.set_threads(stretches[0][0])
    for primitives in zip(*[primitives for _, primitives in stretches], strict=True):
      for instance, primitive in zip(instances, primitives, strict=True):
        primitive.execute(instance.stream)
  for instance in instances:
    dnn.load().dnnl_stream_wait(instance.stream)


def _pooling(
  kind: int,
  source: Handle,
  target: Handle,
  window: tuple[int, int],
  strides: int,
  padding: int,
) -> Handle:
  return dnn.create(
    'pooling_forward_primitive_desc_create',
    *(dnn.engine(), dnn.FORWARD_INFERENCE, kind, source, target),
    *(dnn.dims((strides,) * 2), dnn.dims(window), dnn.dims((0, 0))),
    *(dnn.dims((padding,) * 2), dnn.dims((padding,) * 2), dnn.attributes()),
  )
