"""The stream way: worker processes decode and crop, and hand over uint8 batches in order.

A batch is a pure function of its number: nothing else decides which examples it holds and how
they are cropped, so that neither the number of workers nor that of processes or devices changes
it, and a run goes on at any step without a state of its own. Grain spreads the numbers over the
workers and brings their batches back in order.
"""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import functools
import multiprocessing
import multiprocessing.connection
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags

from bitnet_jax import errors
from bitnet_jax.data.batches import order, shared_memory
from bitnet_jax.data.datasets import sources
from bitnet_jax.data.images import crop

Batch = dict[str, np.ndarray]


class Stopped(Exception):
  """Asked to stop while a batch was waited for, which does not come any more."""


NONE = -1  # In 'skipped': no example was skipped at this place.
_QUIET = 'ignore:resource_tracker'
_START = 3  # Times the longest wait, for the first batch: workers have to import what they need.
_SLICE = 0.2  # Seconds between two looks at whether to stop.
_JOIN_SECONDS = 5.0  # Longest wait for a thread whose batches did not come.
_BUFFERED = 2  # Batches that wait for the device, beside one in each worker.


@dataclasses.dataclass(frozen=True)
class TrainingBatches:
  """The batches of training: `batches(step)`, step counted from 0.

  Attributes:
    source: the split.
    seed: of order and crops.
    global_batch_size: examples of a step, over all devices of all processes.
    first: position in the global batch of this process's first example.
    count: examples of a step in this process.
    crop: makes pixels.
    skip: put the next readable example in the place of one that cannot be read.
  """

  source: sources.Source
  seed: int
  global_batch_size: int
  first: int
  count: int
  crop: crop.Crop
  skip: bool = False

  def __call__(self, step: int) -> Batch:
    """Reads a batch: 'image' uint8, 'label', 'mask' and 'skipped' (indices of the source)."""
    steps_per_epoch = len(self.source) // self.global_batch_size
    epoch, step_in_epoch = divmod(step, steps_per_epoch)
    start = step_in_epoch * self.global_batch_size + self.first
    indices = _epoch_order(self.seed, epoch, len(self.source))[start : start + self.count]
    random_bits = [
      crop.example_random_bits(self.seed, step, self.first + i) for i in range(self.count)
    ]
    batch = _read(self.source, indices, self.crop, random_bits, skip=self.skip)
    for place in np.flatnonzero(batch['skipped'] != NONE):
      self._replace(batch, int(place), int(indices[place]), random_bits[place])
    return batch

  def _replace(self, batch: Batch, place: int, index: int, random_bits: np.ndarray) -> None:
    for other in range(index + 1, index + len(self.source)):
      one = _read(self.source, [other % len(self.source)], self.crop, [random_bits], skip=True)
      if one['mask'][0]:
        for name in ('image', 'label', 'mask'):
          batch[name][place] = one[name][0]
        return
    raise errors.DataError('source', self.source.name, 'no example can be read', 'check the files')


@dataclasses.dataclass(frozen=True)
class EvaluationBatches:
  """All examples once, in the source's order: `batches(number)`, the last one padded.

  Attributes:
    source: the split.
    global_batch_size: examples of a batch, over all devices of all processes.
    first: position in the global batch of this process's first example.
    count: examples of a batch in this process.
    crop: makes pixels.
    skip: mask an example that cannot be read.
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
    """Reads a batch as `TrainingBatches` does; a number beyond the end begins anew."""
    start = number % len(self) * self.global_batch_size + self.first
    indices = range(start, min(start + self.count, len(self.source)))
    return _read(
      self.source, indices, self.crop, [None] * len(indices), skip=self.skip, room=self.count
    )


@functools.lru_cache(maxsize=2)  # The workers may be in two epochs at once.
def _epoch_order(seed: int, epoch: int, num_examples: int) -> np.ndarray:
  return order.epoch_order(seed, epoch, num_examples)


def _read(
  source: sources.Source,
  indices: Any,
  make_pixels: crop.Crop,
  random_bits: Sequence[np.ndarray | None],
  *,
  skip: bool,
  room: int = 0,
) -> Batch:
  """Reads examples into a batch of `room` places, or as many as there are examples."""
  room = room or len(indices)
  views = (make_pixels.views,) if make_pixels.views > 1 else ()
  shape = (room, *views, make_pixels.size, make_pixels.size, source.channels)
  batch = {
    'image': np.zeros(shape, np.uint8),
    'label': np.zeros(room, np.int32),
    'mask': np.zeros(room, np.float32),
    'skipped': np.full(room, NONE, np.int32),
  }
  read: Any = iter(source.__getitems__(indices)) if not skip else None
  for place, index in enumerate(indices):
    try:
      example = next(read) if read else source[int(index)]
      batch['label'][place] = sources.check_label(example, len(source.class_names))
      make_pixels(
        example.encoded, source.channels, example.key, random_bits[place], batch['image'][place]
      )
      batch['mask'][place] = 1.0
    except errors.DataError:
      if not skip:
        raise
      batch['skipped'][place] = index
  return batch


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
    batches: gives a batch by its number; can be pickled.
    start: number of the first batch.
    workers: processes that read; 0 for a thread of this one.
    timeout_seconds: longest wait for a batch.
    stop: asked while a batch is waited for whether to give up; True is its last answer.

  Returns:
    The iterator, to be closed.
  """
  if not flags.FLAGS.is_parsed():
    flags.FLAGS.mark_as_parsed()  # Grain's workers ask for flags that a plain program never parses.
  numbers = grain.MapDataset.range(start, start + 2**40)
  dataset = numbers.map(shared_memory.Sender(batches) if workers else batches).to_iter_dataset(
    grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
  )
  if workers:
    # Shared memory of a worker that was killed is freed by Python's tracker, which says so.
    if _QUIET not in sys.warnoptions:
      sys.warnoptions.append(_QUIET)
    # Nothing goes through Grain's own shared memory: pixels go through ours, the rest is small.
    small = grain.experimental.DatasetOptions(min_shm_size=sys.maxsize)
    dataset = grain.experimental.WithOptionsIterDataset(dataset, small)
    options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=1)
    dataset = dataset.mp_prefetch(options, worker_init_fn=_start_worker)
  return Batches(iter(dataset), workers, timeout_seconds, stop)


def _start_worker(index: int, count: int) -> None:
  """In a worker: it ends with its parent, however that ends, and leaves requests to stop to it."""
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
  """Batches in order; a thread takes them from the workers, so that waiting has an end."""

  def __init__(self, batches: Any, workers: int, timeout_seconds: float, stop: Callable[[], bool]):
    """Starts to read; see `iterate`."""
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
    receive = shared_memory.Receiver()
    try:
      while not self._stop.is_set():
        self._put(receive(next(self._batches)))
    except Exception as error:
      self._put(error)
    finally:
      self._batches.close()
      receive.close()
      del self._batches  # At the interpreter's exit it would complain.

  def _put(self, item: Any) -> None:
    while not self._stop.is_set():
      with contextlib.suppress(queue.Full):
        self._queue.put(item, timeout=0.1)
        return

  def __next__(self) -> Batch:
    """The next batch.

    Raises:
      DataError: an example cannot be read.
      PeerError: a worker process died, or no batch came in time.
      Stopped: asked to stop before the batch was there.
    """
    timeout = self._timeout * (1 if self._started else _START)
    try:
      item = self._wait(timeout)
      self._started = True
    except queue.Empty:
      problem = f'no batch came for {timeout:g} s'
      remedy = 'a worker is stopped or the storage hangs; run again to go on'
      self._fail(problem, remedy)
    if isinstance(item, Exception):
      self._stop.set()
      if isinstance(item, errors.UserError):
        raise item
      if 'terminated unexpectedly' in str(item):
        remedy = 'run again to go on, with fewer workers if memory ran out'
        self._fail(str(item).partition('. ')[0].lower(), remedy, item)
      raise item
    return item

  def _wait(self, timeout: float) -> Any:
    deadline = time.monotonic() + timeout
    while True:
      left = deadline - time.monotonic()
      try:
        return self._queue.get(timeout=max(min(left, _SLICE), 0))
      except queue.Empty:
        if self._asked_to_stop():
          self.close(kill=True)
          raise Stopped from None
        if left <= 0:
          raise

  def _fail(self, problem: str, remedy: str, cause: Exception | None = None) -> None:
    self.close(kill=True)
    raise errors.PeerError('config.data.workers', self._workers, problem, remedy) from cause

  def close(self, *, kill: bool = False) -> None:
    """Ends thread and workers.

    Args:
      kill: do not wait for workers that may never answer.
    """
    atexit.unregister(self.close)
    self._stop.set()
    if kill:
      self._timeout = min(self._timeout, _JOIN_SECONDS)  # For whoever closes it once more.
    else:
      self._thread.join(self._timeout)
    for process in multiprocessing.active_children():
      if process not in self._others and process.name.startswith('grain-process-prefetch'):
        process.kill()
