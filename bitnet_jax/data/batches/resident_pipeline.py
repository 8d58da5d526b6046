"""Keeps a whole split on every device as uint8; a step receives indices and gathers its batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from bitnet_jax.data.batches import arrays, resident
from bitnet_jax.data.datasets.sources import Source
from bitnet_jax.distributed import devices
from bitnet_jax.runtime import host

Tree = Any

# The split lies on every device; 2 GiB holds any small set with room to spare.
MAX_BYTES = 2 * 2**30


class ResidentPipeline:
  """Holds a split decoded on every device; `pipeline.Pipeline` describes attributes and methods."""

  steps_share_inputs = True

  def __init__(
    self,
    source: Source,
    image_shape: tuple[int, int, int],
    global_batch_size: int,
    num_batches: int,
    epoch_batches: Callable[[int], np.ndarray],
  ):
    """Computes shapes; reads no image.

    Args:
      source: the split.
      image_shape: (height, width, channels).
      global_batch_size: examples of a batch, over all devices.
      num_batches: batches of an epoch.
      epoch_batches: returns the indices of an epoch's examples, int32,
        `[devices, steps, batch of a device]`.
    """
    self._source, self._epoch_batches = source, epoch_batches
    self.num_examples, self.num_batches = len(source), num_batches
    self.class_names, self.image_shape = source.class_names, image_shape
    self.fingerprint = source.fingerprint
    local_batch = global_batch_size // jax.device_count()
    self.shapes = {
      'image': jax.ShapeDtypeStruct((len(source), *image_shape), np.uint8),
      'label': jax.ShapeDtypeStruct((len(source),), np.int32),
      'order': jax.ShapeDtypeStruct((num_batches, local_batch), np.int32),
    }
    self._inputs: Tree = {}
    self._epoch, self._placed = -1, None  # type: int, np.ndarray | None

  @staticmethod
  def fetch_batch(inputs: Tree, step_in_epoch: jax.Array) -> dict[str, jax.Array]:
    """Gathers a step's batch on the device, as `resident.fetch_batch`."""
    return resident.fetch_batch(inputs, step_in_epoch)

  def load(self) -> None:
    """Decodes the split onto the devices; raises DataError where it cannot be read."""
    data = arrays.load_arrays(
      self._source, self.image_shape[0], host.available_cores(), max_bytes=MAX_BYTES
    )
    self.fingerprint = data.fingerprint
    self._inputs = devices.replicate({'image': data.image, 'label': data.label})

  def inputs(self, number: int) -> Tree:
    """Returns images, labels and the epoch's order; only a new order is transferred."""
    epoch = number // self.num_batches
    if epoch != self._epoch:
      batches = self._epoch_batches(epoch)
      if batches is not self._placed:
        self._inputs['order'] = devices.scatter(batches)
      self._epoch, self._placed = epoch, batches
    return self._inputs

  def close(self) -> None:
    """Does nothing: nothing reads ahead."""
