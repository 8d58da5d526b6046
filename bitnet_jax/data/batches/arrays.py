"""Loads a small data set as one array of pixels, for the resident pipeline."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib

import numpy as np

from bitnet_jax import errors
from bitnet_jax.data.datasets import sources
from bitnet_jax.data.images import decode

_EXAMPLES_PER_TASK = 256  # Large enough that the overhead of a task is negligible.


@dataclasses.dataclass(frozen=True)
class Arrays:
  """Holds a decoded split.

  Attributes:
    image: uint8 `[examples, size, size, channels]`, 0..255.
    label: int32 `[examples]`.
    class_names: names in the order of the labels.
    fingerprint: SHA-256 of the source, and of the files' contents where `source.hashed` is False.
  """

  image: np.ndarray
  label: np.ndarray
  class_names: tuple[str, ...]
  fingerprint: str = ''


def load_arrays(
  source: sources.Source, image_size: int, workers: int = 4, *, max_bytes: int = 0
) -> Arrays:
  """Decodes a whole split, resizing and cropping images that need it.

  Args:
    source: the split.
    image_size: side in pixels.
    workers: threads that read and decode.
    max_bytes: largest number of bytes of pixels to load; 0 for no limit.

  Returns:
    The arrays, in the source's order whatever the number of workers.

  Raises:
    DataError: the split is empty, larger than `max_bytes`, or has an image that cannot be decoded
      or a label out of range.
  """
  where = f'{source.name}/{source.split}'
  if not len(source):
    raise errors.DataError('source', where, 'no examples', 'choose a split that has some')
  shape = (len(source), image_size, image_size, source.channels)
  num_bytes = int(np.prod(shape, dtype=np.int64))
  if max_bytes and num_bytes > max_bytes:
    problem = f'{num_bytes} bytes of pixels, more than the {max_bytes} allowed in memory'
    remedy = 'stream it from disk instead, or lower config.data.image_size'
    raise errors.DataError('source', where, problem, remedy)
  image = np.empty(shape, np.uint8)
  label = np.empty(len(source), np.int32)
  digests = [b''] * len(source)

  def load(start: int) -> None:
    indices = range(start, min(start + _EXAMPLES_PER_TASK, len(source)))
    for index, example in zip(indices, source.__getitems__(indices), strict=True):
      label[index] = sources.check_label(example, len(source.class_names))
      if not source.hashed:  # Takes a fiftieth of the time of decoding.
        digests[index] = hashlib.sha256(example.encoded).digest()
      pixels = decode.decode(example.encoded, source.channels, example.key)
      image[index] = decode.fit(pixels, image_size)

  pool = concurrent.futures.ThreadPoolExecutor(max(1, workers))
  try:
    for _ in pool.map(load, range(0, len(source), _EXAMPLES_PER_TASK)):
      pass
  finally:
    # Tasks are left only where one failed or the user stopped the program.
    pool.shutdown(cancel_futures=True)
  fingerprint = source.fingerprint
  if not source.hashed:
    fingerprint = hashlib.sha256(fingerprint.encode() + b''.join(digests)).hexdigest()
  return Arrays(image, label, source.class_names, fingerprint)
