"""Reads a prepared CIFAR with tfds alone, and prints what it holds as JSON."""

import hashlib
import json
import sys

import tensorflow_datasets as tfds

name, data_dir = sys.argv[1:]
found = {}
for split in ('train', 'test'):
  for example in tfds.data_source(name, split=split, data_dir=data_dir, download=False):
    image = example['image']
    assert image.shape == (32, 32, 3) and image.dtype == 'uint8'
    found[example['id'].decode()] = [
      hashlib.sha256(image.tobytes()).hexdigest(),
      int(example['label']),
      int(example.get('coarse_label', -1)),
      sorted(example),
    ]
info = tfds.builder(name, data_dir=data_dir).info
found['names'] = info.features['label'].names
found['modules'] = [m for m in sys.modules if m.split('.')[0] in ('tensorflow', 'bitnet_jax')]
print(json.dumps(found))
