"""Kernels and vectors of a network, as oneDNN's primitives want them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence

import numpy as np

from bitnet_jax.onednn import graph
from bitnet_jax.onednn import library as dnn
from bitnet_jax.onednn.layout import Step
from bitnet_jax.onednn.library import Handle


class Weights:
  """Kernels and vectors as primitives want them, each made once.

  A network's packed kernel is made by the first instance and kept for the others, as long as they
  want the same layout.
  """

  def __init__(self) -> None:
    self._packed: dict[int, list[tuple[Handle, dnn.AlignedBuffer]]] = {}
    self._vectors: dict[int, list[dnn.AlignedBuffer]] = {}

  def kernel(self, key: int, layout: Handle, make: Callable[[], np.ndarray]) -> Handle:
    """Memory of a kernel.

    Args:
      key: which it is.
      layout: that the primitive wants.
      make: gives it, `[size, size, channels, filters]`, float32.
    """
    versions = self._packed.setdefault(key, [])
    for other, packed in versions:
      if dnn.equal(other, layout):
        return packed.memory
    versions.append((layout, _packed(np.ascontiguousarray(make(), np.float32), layout)))
    return versions[-1][1].memory

  def vectors(self, key: int, make: Callable[[], Sequence[np.ndarray]]) -> list[Handle]:
    """Memories of vectors, float32."""
    if key not in self._vectors:
      self._vectors[key] = [_filled(values) for values in make()]
    return [vector.memory for vector in self._vectors[key]]


def _packed(kernel: np.ndarray, layout: Handle) -> dnn.AlignedBuffer:
  source = dnn.kernels(kernel.shape[0], *kernel.shape[2:])
  given, packed = dnn.memory(source), dnn.AlignedBuffer(layout)
  dnn.set_data_handle(given, kernel.ctypes.data)
  arguments = {dnn.SRC: given, dnn.DST: packed.memory}
  dnn.Primitive(dnn.reorder(source, layout), arguments).execute(dnn.stream())
  return packed


def _filled(values: np.ndarray) -> dnn.AlignedBuffer:
  owned = dnn.AlignedBuffer(dnn.vector(len(values)))
  values = np.ascontiguousarray(values, np.float32)
  ctypes.memmove(owned.address, values.ctypes.data, values.nbytes)
  return owned


def spread(step: Step, values: np.ndarray) -> np.ndarray:
  """Values of channels by lane of the target, with zeros between."""
  lanes = np.zeros(step.target.lanes, np.float32)
  lanes[step.outputs] = values
  return lanes


def spread_kernel(step: Step, conv: graph.Conv, lanes: tuple[int, int]) -> np.ndarray:
  """A kernel by lanes of source and target, which also passes on what it has to."""
  size = conv.kernel.shape[0]
  kernel = np.zeros((size, size, *lanes), np.float32)
  kernel[:, :, step.inputs[:, None], step.outputs[None, :]] = conv.kernel
  for source, target in step.passed:
    kernel[size // 2, size // 2, source, target] = 1
  return kernel
