"""A data set of random images in memory, for the tests of the stream."""

import dataclasses
import io

import numpy as np
from PIL import Image

from bitnet_jax.data.batches import stream
from bitnet_jax.data.datasets import sources
from bitnet_jax.data.images import crop

NUMBER = 23
CROP = crop.RandomResizedCrop(8)


@dataclasses.dataclass(frozen=True)
class Source:
  """Images of random pixels in memory, whose labels are their indices; some cannot be read."""

  broken: tuple[int, ...] = ()
  name: str = 'memory'
  split: str = 'train'
  class_names: tuple[str, ...] = tuple(map(str, range(NUMBER)))
  channels: int = 3
  image_size: int = 0
  hashed: bool = True

  def __len__(self):
    return NUMBER

  def __getitem__(self, index):
    pixels = np.random.default_rng(index).integers(0, 256, (20, 24, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, 'PNG')
    encoded = file.getvalue()
    return sources.Example(f'k{index}', encoded[: 99 if index in self.broken else None], index)

  def __getitems__(self, indices):
    return [self[int(index)] for index in indices]


def training(source=None, batch=6, first=0, count=6, **options):
  return stream.TrainingBatches(source or Source(), 7, batch, first, count, CROP, **options)
