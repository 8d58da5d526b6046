"""A whole network as one call: images in, logits out, both NumPy arrays.

Each core has images of its own and no thread waits for another: so few at a time that their
activations stay in the cache. What is left over, or a single image, is shared by all cores.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from bitnet_jax.onednn import graph, instance
from bitnet_jax.onednn import library as dnn
from bitnet_jax.onednn.instance import Instance
from bitnet_jax.onednn.layout import Layout
from bitnet_jax.onednn.weights import Weights
from bitnet_jax.runtime import host

# Multiply-adds that are worth another thread: one that waits awake, one that must be woken.
_SPINNING_SHARE, _PASSIVE_SHARE = 10**6, 10**7
# Images that one core takes through the network together, as long as their activations are no more
# than so many bytes: some of its caches.
_TOGETHER, _CACHE_BYTES = 4, 2**23


# All there are, for the process to tell of a fork.
_programs: weakref.WeakSet[Program] = weakref.WeakSet()


class Program:
  """A function of images; any thread may call it.

  Args:
    network: simplified.
    dtype: 'f32' or 'bf16', of the computation.

  Raises:
    Unsupported: it cannot be laid out.
    RuntimeError: oneDNN refuses.
  """

  def __init__(self, network: graph.Network, dtype: str) -> None:
    self._network, self._dtype, self._block = network, dtype, dnn.register_lanes()
    self._layout = Layout(network, self._block)
    self._shape, self._weights = network.nodes[0].shape, Weights()
    self._kernel = np.zeros((self._layout.features.lanes, len(network.bias)), np.float32)
    self._kernel[self._layout.feature_lanes] = network.kernel
    self._idle: list[list[Instance]] = []
    self._settle()
    self._shared: Instance | None = self._make(self._cores)
    _programs.add(self)

  def _settle(self) -> None:
    """Begins anew in a process: in a fork, threads of OpenMP and holders of locks are missing."""
    self._cores = host.available_cores()
    self._making, self._sharing = threading.Lock(), threading.Lock()
    self._shared = None

  def _make(self, limit: int) -> Instance:
    share = _SPINNING_SHARE if dnn.spins() else _PASSIVE_SHARE
    with self._making:
      return Instance(
        self._network,
        self._layout,
        dtype=self._dtype,
        block=self._block,
        weights=self._weights,
        threads=lambda work: min(max(work // share, 1), limit),
      )

  def __call__(self, images: npt.ArrayLike) -> np.ndarray:
    """Maps images, `[batch, height, width, channels]`, to logits, `[batch, classes]`, float32.

    Raises:
      ValueError: they have another size than the network was made for.
    """
    batch = np.ascontiguousarray(images, np.float32)
    if batch.shape[1:] != self._shape:
      raise ValueError(f'images of {batch.shape[1:]}; the network was made for {self._shape}')
    means = np.empty((len(batch), len(self._kernel)), np.float32)
    left = len(batch) % self._cores
    shared = self._shared if left <= self._cores // 2 else None
    apart = len(batch) - left if shared else len(batch)
    if apart:
      self._run_apart(batch[:apart], means[:apart])
    if shared and left:
      self._run_shared(shared, batch[apart:], means[apart:])
    return means @ self._kernel + self._network.bias

  def _run_shared(self, shared: Instance, images: np.ndarray, means: np.ndarray) -> None:
    """One after the other, each by all cores."""
    with self._sharing:
      for image, mean in zip(images, means, strict=True):
        instance.run([shared], [image.ctypes.data], [mean.ctypes.data])

  def _run_apart(self, images: np.ndarray, means: np.ndarray) -> None:
    """Each by one core; whoever is ready takes the next."""
    workers = min(self._cores, len(images))
    portions = iter(portion(len(images), workers))
    faults: list[BaseException] = []

    def work() -> None:
      try:
        self._run_some(images, means, portions)
      except BaseException as fault:
        faults.append(fault)

    others = [threading.Thread(target=work) for _ in range(workers - 1)]
    for thread in others:
      thread.start()
    work()
    for thread in others:
      thread.join()
    if faults:
      raise faults[0]

  def _run_some(self, images: np.ndarray, means: np.ndarray, portions: Iterator[range]) -> None:
    try:
      group = self._idle.pop()
    except IndexError:
      group = [self._make(1)]
    most = max(_CACHE_BYTES // group[0].size, 1)
    for numbers in portions:
      for first in range(0, len(numbers), most):
        some = numbers[first : first + most]
        while len(group) < len(some):
          group.append(self._make(1))
        addresses = ([array[i].ctypes.data for i in some] for array in (images, means))
        instance.run(group[: len(some)], *addresses)
    self._idle.append(group)


def portion(count: int, workers: int) -> list[range]:
  """Divides images among workers: fewer at a time towards the end, so that all end together."""
  portions, first = [], 0
  while first < count:
    size = min(max((count - first) // (2 * workers), 1), _TOGETHER)
    portions.append(range(first, first + size))
    first += size
  return portions


def _settle_all() -> None:
  for program in list(_programs):
    program._settle()


os.register_at_fork(after_in_child=_settle_all)  # Before the child has a second thread.
