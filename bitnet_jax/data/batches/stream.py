"""Streams batches of uint8 pixels, in order, from worker processes that decode and crop.

A batch is a pure function of its number: nothing else decides which examples the batch holds and
how they are cropped. Neither the number of workers nor that of processes or devices changes a
batch, and a run resumes at any step without a saved state of its input. Grain spreads the numbers
over the workers and returns their batches in order, through shared memory.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import multiprocessing
import multiprocessing.connection
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import grain
import numpy as np
from absl import flags

from bitnet_jax import errors
from bitnet_jax.data.batches import examples, order
from bitnet_jax.data.datasets import sources
from bitnet_jax.data.images import crop

Batch = dict[str, np.ndarray]


class Stopped(Exception):
  """Signals that the run was asked to stop before the next batch arrived."""


_QUIET = 'ignore:resource_tracker'
_FIRST_BATCH = 3  # Times the timeout, for the first batch: workers have to import what they need.
_POLL_SECONDS = 0.2  # Between two questions whether to stop.
_JOIN_SECONDS = 5.0  # Longest wait for a thread whose batches did not come.
_BUFFERED = 2  # Batches that wait for the device, beside one in each worker.


@dataclasses.dataclass(frozen=True)
class TrainingBatches:
  """Makes the batches of training: `batches(step)`, step counted from 0.

  Attributes:
    source: the split.
    seed: seed of order and crops.
    global_batch_size: examples of a step, over all devices of all processes.
    first: position in the global batch of this process's first example.
    count: examples of a step in this process.
    crop: crops the images.
    skip: whether the next readable example replaces one that cannot be read.
  """

  source: sources.Source
  seed: int
  global_batch_size: int
  first: int
  count: int
  crop: crop.Crop
  skip: bool = False

  def __call__(self, step: int) -> Batch:
    """Reads a batch.

    Returns:
      'image' `[count, (views,) size, size, channels]`, uint8; 'label' `[count]`, int32; 'mask'
      `[count]`, float32; 'skipped' `[count]`, int32: indices of the source, or `examples.NONE`.

    Raises:
      DataError: an example cannot be read; with `skip`, none can.
    """
    steps_per_epoch = len(self.source) // self.global_batch_size
    epoch, step_in_epoch = divmod(step, steps_per_epoch)
    start = step_in_epoch * self.global_batch_size + self.first
    indices = order.epoch_order(self.seed, epoch, len(self.source))[start : start + self.count]
    random_bits = [
      crop.example_random_bits(self.seed, step, self.first + i) for i in range(self.count)
    ]
    batch = examples.read_batch(self.source, indices, self.crop, random_bits, skip=self.skip)
    for place in np.flatnonzero(batch['skipped'] != examples.NONE):
      self._replace(batch, int(place), int(indices[place]), random_bits[place])
    return batch

  def _replace(self, batch: Batch, place: int, index: int, random_bits: np.ndarray) -> None:
    for other in range(index + 1, index + len(self.source)):
      one = examples.read_batch(
        self.source, [other % len(self.source)], self.crop, [random_bits], skip=True
      )
      if one['mask'][0]:
        for name in ('image', 'label', 'mask'):
          batch[name][place] = one[name][0]
        return
    raise errors.DataError('source', self.source.name, 'no example can be read', 'check the files')


@dataclasses.dataclass(frozen=True)
class EvaluationBatches:
  """Makes batches of all examples once, in the source's order: `batches(number)`, the last padded.

  Attributes:
    source: the split.
    global_batch_size: examples of a batch, over all devices of all processes.
    first: position in the global batch of this process's first example.
    count: examples of a batch in this process.
    crop: crops the images.
    skip: whether an example that cannot be read is masked.
  """

  source: sources.Source
  global_batch_size: int
  first: int
  count: int
  crop: crop.Crop
  skip: bool = False

  def __len__(self) -> int:
    return -(-len(self.source) // self.global_batch_size)

  def __call__(self, number: int) -> Batch:
    """Reads a batch as `TrainingBatches` does; a number beyond the last batch wraps around."""
    start = number % len(self) * self.global_batch_size + self.first
    indices = range(start, min(start + self.count, len(self.source)))
    no_bits = [None] * len(indices)
    return examples.read_batch(
      self.source, indices, self.crop, no_bits, skip=self.skip, size=self.count
    )


def iterate(
  batches: Callable[[int], Batch],
  start: int,
  *,
  workers: int,
  timeout_seconds: float,
  stop: Callable[[], bool] = lambda: False,
) -> Batches:
  """Reads batches number `start`, `start + 1` and so on without end, ahead of their use.

  Args:
    batches: returns a batch by its number; can be pickled.
    start: number of the first batch.
    workers: processes that read; 0 for a thread of this one.
    timeout_seconds: longest wait for a batch.
    stop: asked while the iterator waits for a batch whether to give up; not asked again after True.

  Returns:
    The iterator, which the caller closes.
  """
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # Grain's workers ask for flags that a plain program never parses.
  dataset = grain.MapDataset.range(start, start + 2**40).map(batches)
  dataset = dataset.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))
  if workers:
    # Python's resource tracker frees the shared memory of a killed worker, with a warning.
    if _QUIET not in sys.warnoptions:
      sys.warnoptions.append(_QUIET)
    options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=1)
    dataset = dataset.mp_prefetch(options, worker_init_fn=_start_worker)
  return Batches(iter(dataset), workers, timeout_seconds, stop)


def _start_worker(index: int, count: int) -> None:
  """Prepares a worker: the parent alone handles signals to stop, and the worker ends with it."""
  del index, count
  for number in (signal.SIGINT, signal.SIGTERM):  # Sent to all processes of a job at once.
    signal.signal(number, signal.SIG_IGN)
  parent = multiprocessing.parent_process()
  if parent is not None:
    threading.Thread(target=_die_with, args=(parent.sentinel,), daemon=True).start()


def _die_with(sentinel: int) -> None:
  multiprocessing.connection.wait([sentinel])
  os._exit(1)


class Batches(Iterator[Batch]):
  """Iterates over batches in order; a thread receives them, so that every wait has a timeout."""

  def __init__(self, batches: Any, workers: int, timeout_seconds: float, stop: Callable[[], bool]):
    """Starts to read; `iterate` describes the arguments."""
    self._batches, self._workers, self._timeout = batches, workers, timeout_seconds
    self._asked_to_stop = stop
    self._others = set(multiprocessing.active_children())
    self._queue: queue.Queue[Any] = queue.Queue(_BUFFERED)
    self._stop = threading.Event()
    self._started = False
    self._thread = threading.Thread(target=self._run, daemon=True)
    self._thread.start()
    atexit.register(self.close)  # Before multiprocessing's own, which waits for the workers.

  def _run(self) -> None:
    try:
      while not self._stop.is_set():
        # Copies: Grain frees a batch's shared memory as soon as nobody refers to the batch.
        self._put({name: np.array(value) for name, value in next(self._batches).items()})
    except Exception as error:
      self._put(error)
    finally:
      self._batches.close()
      del self._batches  # At the interpreter's exit it would complain.

  def _put(self, item: Any) -> None:
    while not self._stop.is_set():
      with contextlib.suppress(queue.Full):
        self._queue.put(item, timeout=0.1)
        return

  def __next__(self) -> Batch:
    """Returns the next batch.

    Raises:
      DataError: an example cannot be read.
      PeerError: a worker process died, or no batch came in time.
      StorageError: a worker died because shared memory is full.
      Stopped: the run was asked to stop before the batch arrived.
    """
    timeout = self._timeout * (1 if self._started else _FIRST_BATCH)
    try:
      item = self._wait(timeout)
    except queue.Empty:
      remedy = 'a worker is stopped or the storage hangs; run again to go on'
      raise self._lost(f'no batch came for {timeout:g} s', remedy) from None
    self._started = True
    if not isinstance(item, Exception):
      return item
    self._stop.set()
    if 'terminated unexpectedly' not in str(item):
      raise item
    problem = str(item).partition('. ')[0].lower()
    lost = self._lost(problem, 'run again to go on, with fewer workers if memory ran out')
    if problem.endswith(f' {-signal.SIGBUS}'):  # A write to a page that could not be had.
      remedy = 'enlarge it (docker run --shm-size=8g) or lower config.data.workers'
      lost = errors.StorageError('shared memory', '/dev/shm', 'no room for a batch', remedy)
    raise lost from item

  def _wait(self, timeout: float) -> Any:
    deadline = time.monotonic() + timeout
    while True:
      left = deadline - time.monotonic()
      try:
        return self._queue.get(timeout=max(min(left, _POLL_SECONDS), 0))
      except queue.Empty:
        if self._asked_to_stop():
          self.close(kill=True)
          raise Stopped from None
        if left <= 0:
          raise

  def _lost(self, problem: str, remedy: str) -> errors.UserError:
    self.close(kill=True)
    return errors.PeerError('config.data.workers', self._workers, problem, remedy)

  def close(self, *, kill: bool = False) -> None:
    """Ends thread and workers.

    Args:
      kill: whether to kill workers at once, because they may never answer.
    """
    atexit.unregister(self.close)
    self._stop.set()
    if kill:
      self._timeout = min(self._timeout, _JOIN_SECONDS)  # In case the caller closes once more.
    else:
      self._thread.join(self._timeout)
    for process in multiprocessing.active_children():
      if process not in self._others and process.name.startswith('grain-process-prefetch'):
        process.kill()
