"""Opens a split of the configured data set and says how large its images are."""

from __future__ import annotations

import math
from collections.abc import Callable

import ml_collections

from bitnet_jax import errors
from bitnet_jax.data.datasets import sources
from bitnet_jax.data.datasets.sources import Source

# Data sets up to this size are compared with their SHA-256 at every start: a second of reading.
ALWAYS_HASHED_BYTES = 2**30


def open_split(
  config: ml_collections.ConfigDict, split: str, *, stop: Callable[[], bool] = lambda: False
) -> Source:
  """Opens a split of the configured data set.

  Args:
    config: validated.
    split: as `data.train_split`.
    stop: ends the comparison with the manifest early; the caller then ends too.

  Raises:
    DataError: the set is not prepared, empty or damaged.
    ConfigError: its images have not the channels that `data.mean` is given for.
  """
  data = config.data
  hash_bytes = math.inf if data.verify else ALWAYS_HASHED_BYTES
  source = sources.open_source(data.name, split, data.dir, hash_bytes=hash_bytes, stop=stop)
  if source.channels != len(data.mean):
    problem = f'{data.name} has {source.channels} channel(s)'
    raise errors.ConfigError('config.data.mean', data.mean, problem, 'give one value for each')
  return source


def image_shape(config: ml_collections.ConfigDict, source: Source) -> tuple[int, int, int]:
  """Returns (height, width, channels) of the images that the network sees.

  Raises:
    DataError: the images vary in size and `data.image_size` is not set.
  """
  size = config.data.image_size or source.image_size
  if not size:
    where = f'{source.name}/{source.split}'
    remedy = 'give config.data.image_size'
    raise errors.DataError('source', where, 'images vary in size', remedy)
  return size, size, source.channels
