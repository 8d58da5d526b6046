"""Reads a prepared data set and a folder of images, then prints whether TensorFlow was loaded."""

import sys

from PIL import Image

from bitnet_jax.data.batches import arrays, order
from bitnet_jax.data.datasets import prepared, sources

data_dir, root = sys.argv[1:]
prepared.prepare('digits', data_dir)
Image.new('RGB', (9, 7)).save(f'{root}/x.png')
for source in (
  sources.open_source('digits', 'test[:5]', data_dir),
  sources.open_source('folder', 'train', f'{root}/../..'),
):
  print(arrays.load_arrays(source, 6).image.shape, order.epoch_order(0, 0, 3).shape)
print([name for name in sys.modules if name.split('.')[0] == 'tensorflow'])
