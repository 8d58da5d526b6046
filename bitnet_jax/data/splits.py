"""Opens a split of the configured data set, and decodes it into memory."""

from __future__ import annotations

import math
from collections.abc import Callable

import ml_collections

from bitnet_jax import errors
from bitnet_jax.data.batches import arrays
from bitnet_jax.data.datasets import sources
from bitnet_jax.runtime import host

# A split that is resident lies on every device: 2 GiB holds any small set with room to spare.
MAX_RESIDENT_BYTES = 2 * 2**30
# A second of reading at most: sets up to this size are compared with their hashes at every start.
ALWAYS_HASHED_BYTES = 2**30


def open_split(
  config: ml_collections.ConfigDict, split: str, *, stop: Callable[[], bool] = lambda: False
) -> sources.Source:
  """Opens a split of the configured data set.

  Args:
    config: validated.
    split: as `data.train_split`.
    stop: ends the comparison with the manifest early; the caller then ends too.

  Raises:
    DataError: it is not prepared, empty, damaged, or has not the channels that `data.mean` is
      given for.
  """
  data = config.data
  hash_bytes = math.inf if data.verify else ALWAYS_HASHED_BYTES
  source = sources.open_source(data.name, split, data.dir, hash_bytes=hash_bytes, stop=stop)
  if source.channels != len(data.mean):
    raise errors.ConfigError(
      'config.data.mean',
      data.mean,
      f'{data.name} has {source.channels} channel(s)',
      'give one value for each',
    )
  return source


def load_split(config: ml_collections.ConfigDict, source: sources.Source) -> arrays.Arrays:
  """Decodes what `open_split` opened into memory.

  Raises:
    DataError: it cannot be read, or is too large.
  """
  return arrays.load_arrays(
    source,
    config.data.image_size,
    workers=host.available_cores(),
    max_bytes=MAX_RESIDENT_BYTES,
  )
