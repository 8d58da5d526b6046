"""Opens a split of the configured data set, and decides how large its images are."""

from __future__ import annotations

import math
from collections.abc import Callable

import ml_collections

from bitnet_jax import errors
from bitnet_jax.data.datasets import sources
from bitnet_jax.data.datasets.sources import Source

# The SHA-256 of data sets up to this size is compared at every start, which takes a second.
ALWAYS_HASHED_BYTES = 2**30


def open_split(
  config: ml_collections.ConfigDict, split: str, *, stop: Callable[[], bool] = lambda: False
) -> Source:
  """Opens a split of the configured data set.

  Args:
    config: validated.
    split: name of the split, as `data.train_split`.
    stop: ends the comparison with the manifest early where it returns True; the caller ends too.

  Raises:
    DataError: the data set is not prepared, empty or damaged.
    ConfigError: the number of channels differs from the length of `data.mean`.
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
