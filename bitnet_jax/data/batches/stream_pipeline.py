"""Streams a split to the devices: worker processes decode and crop each batch when it is due."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np

from bitnet_jax import errors
from bitnet_jax.data.batches import examples, stream
from bitnet_jax.data.datasets.sources import Source
from bitnet_jax.distributed import devices
from bitnet_jax.runtime import host

Tree = Any


class StreamPipeline:
  """Streams a split; `pipeline.Pipeline` describes the attributes and methods."""

  steps_share_inputs = False

  def __init__(
    self,
    config: ml_collections.ConfigDict,
    source: Source,
    image_shape: tuple[int, int, int],
    batches: stream.TrainingBatches | stream.EvaluationBatches,
    num_batches: int,
    stop: Callable[[], bool],
  ):
    """Computes shapes; reads no image.

    Args:
      config: validated; gives the number of workers and the longest wait for a batch.
      source: the split.
      image_shape: (height, width, channels).
      batches: returns this process's part of a batch by its number.
      num_batches: batches of an epoch.
      stop: asked during a wait for a batch whether to give up.
    """
    self._data, self._source, self._batches, self._stop = config.data, source, batches, stop
    self.num_examples, self.num_batches = len(source), num_batches
    self.class_names, self.image_shape = source.class_names, image_shape
    self.fingerprint = source.fingerprint
    local_batch = batches.global_batch_size // jax.device_count()
    views = (batches.crop.views,) if batches.crop.views > 1 else ()
    self.shapes = {
      'image': jax.ShapeDtypeStruct((local_batch, *views, *image_shape), np.uint8),
      'label': jax.ShapeDtypeStruct((local_batch,), np.int32),
      'mask': jax.ShapeDtypeStruct((local_batch,), np.float32),
    }
    self._reader: stream.Batches | None = None
    self._skipped: set[int] = set()

  @staticmethod
  def fetch_batch(inputs: Tree, step_in_epoch: jax.Array) -> dict[str, jax.Array]:
    """Returns `inputs`, which are one batch already."""
    del step_in_epoch
    return inputs

  def load(self) -> None:
    """Does nothing: workers start with the first batch, whose number a restored run decides."""

  def inputs(self, number: int) -> Tree:
    """Returns the batch on the devices.

    Raises:
      DataError: an example cannot be read, or too many were skipped.
      PeerError: a worker died, or no batch came in time.
      stream.Stopped: the run was asked to stop before the batch arrived.
    """
    if self._reader is None:
      self._reader = stream.iterate(
        self._batches,
        number,
        workers=min(num_workers(self._data), max(self.num_batches, 1)),
        timeout_seconds=self._data.timeout_seconds,
        stop=self._stop,
      )
    batch = next(self._reader)
    self._count_skipped(batch.pop('skipped'))
    return devices.place(batch)

  def close(self) -> None:
    """Ends the workers."""
    if self._reader:
      self._reader.close()

  def _count_skipped(self, skipped: np.ndarray) -> None:
    """Reports each skipped example once; raises DataError where there are too many."""
    max_skipped = self._data.max_skipped
    for index in set(skipped[skipped != examples.NONE].tolist()) - self._skipped:
      self._skipped.add(index)
      key = self._key(index)
      print(f'skipped {key}, which cannot be read', flush=True)
      if len(self._skipped) > math.ceil(max_skipped * self.num_examples):
        count = f'{len(self._skipped)} of {self.num_examples}'
        problem = f'{count} cannot be read, the last being this one'
        remedy = f'repair them or raise config.data.max_skipped={max_skipped:g}'
        raise errors.DataError('image', key, problem, remedy)

  def _key(self, index: int) -> str:
    try:
      return self._source[index].key
    except errors.DataError:
      return f'{self._source.split}[{index}]'


def num_workers(data: ml_collections.ConfigDict) -> int:
  """Returns how many processes decode: as configured, or one for each core."""
  return data.workers if data.workers >= 0 else host.available_cores()
