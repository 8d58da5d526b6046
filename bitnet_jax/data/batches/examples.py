"""Reads and crops the examples of one batch, for the batches of a stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from bitnet_jax import errors
from bitnet_jax.data.datasets import sources
from bitnet_jax.data.images import crop

NONE = -1  # In 'skipped': the example at this position was not skipped.


def read_batch(
  source: sources.Source,
  indices: Any,
  make_pixels: crop.Crop,
  random_bits: Sequence[np.ndarray | None],
  *,
  skip: bool,
  size: int = 0,
) -> dict[str, np.ndarray]:
  """Reads examples into a batch.

  Args:
    source: the split.
    indices: which examples of the source, at most `size`.
    make_pixels: crops the images.
    random_bits: what `make_pixels` takes, one for each index.
    skip: whether an example that cannot be read is masked, and its index told.
    size: positions of the batch; those without an example are masked. 0 for the number of indices.

  Returns:
    'image' `[size, (views,) side, side, channels]`, uint8; 'label' `[size]`, int32; 'mask'
    `[size]`, float32; 'skipped' `[size]`, int32: indices that could not be read, else `NONE`.

  Raises:
    DataError: an example cannot be read and `skip` is False.
  """
  size = size or len(indices)
  views = (make_pixels.views,) if make_pixels.views > 1 else ()
  shape = (size, *views, make_pixels.size, make_pixels.size, source.channels)
  batch = {
    'image': np.zeros(shape, np.uint8),
    'label': np.zeros(size, np.int32),
    'mask': np.zeros(size, np.float32),
    'skipped': np.full(size, NONE, np.int32),
  }
  examples: Any = iter(source.__getitems__(indices)) if not skip else None
  for place, index in enumerate(indices):
    try:
      example = next(examples) if examples else source[int(index)]
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
