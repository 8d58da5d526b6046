"""Reads a prepared ILSVRC12 with tfds alone, and prints what it holds as JSON."""

import hashlib
import json
import sys

import tensorflow_datasets as tfds


def open_split(split, **options):
  return tfds.data_source(
    'imagenet2012', split=split, data_dir=sys.argv[1], download=False, **options
  )


found = {}
for split in ('train', 'validation'):
  encoded = open_split(split, decoders={'image': tfds.decode.SkipDecoding()})
  for example, raw in zip(open_split(split), encoded, strict=True):
    image = example['image']
    assert image.dtype == 'uint8' and image.shape[2] == 3
    found[example['file_name'].decode()] = [
      int(example['label']),
      image.shape,
      image.mean(axis=(0, 1)).tolist(),
      hashlib.sha256(raw['image']).hexdigest(),
    ]
found['names'] = tfds.builder('imagenet2012', data_dir=sys.argv[1]).info.features['label'].names
found['modules'] = [m for m in sys.modules if m.split('.')[0] in ('tensorflow', 'bitnet_jax')]
print(json.dumps(found))
