"""Prepares a data set for training: writes it as ArrayRecord, through tfds.

  python -m bitnet_jax.prepare --dataset=cifar10 --data_dir=DIR [--archive_dir=DIR]

The data set is digits, cifar10, cifar100, imagenet2012, or the path of a folder
of images (train/CLASS/*.jpg), which can also be trained on as it is. Needs a
network for CIFAR only, and only without --archive_dir; the archives of
imagenet2012 have to be fetched by hand. Archives are checked against their
published SHA-256. Safe to interrupt and to run again. --verify compares every
file with the manifest that was written beside them.
"""

from __future__ import annotations

import logging
import math
import sys

import tensorflow_datasets as tfds
from absl import flags
from absl import logging as absl_logging

from bitnet_jax.data.datasets import builders, prepared, shard_manifest
from bitnet_jax.runtime import cli, path_flags

_DATASET = path_flags.define(
  'dataset', None, f'{", ".join(builders.BUILDERS)}, or a folder of images.', required=True
)
_DATA_DIR = path_flags.define(
  'data_dir', '', 'Where to write; empty: $TFDS_DATA_DIR or ~/tensorflow_datasets.'
)
_ARCHIVE_DIR = path_flags.define(
  'archive_dir', '', 'Where the official archives are; empty: download them.'
)
_UNOFFICIAL = flags.DEFINE_boolean(
  'unofficial', False, 'Take archives of imagenet2012 with other contents, such as a part of it.'
)
_VERIFY = flags.DEFINE_boolean('verify', False, 'Compare SHA-256 of all files with the manifest.')


def main(argv: list[str]) -> None:
  """Prepares the data set that the flags name and says where it is."""
  del argv
  absl_logging.set_verbosity(absl_logging.WARNING)
  logging.getLogger('urllib3').setLevel(logging.ERROR)  # It warns at every retry.
  if not sys.stderr.isatty():
    tfds.disable_progress_bar()
  name, data_dir = _DATASET.value, _DATA_DIR.value
  there = prepared.is_prepared(prepared.make_builder(name, data_dir))
  path = prepared.prepare(name, data_dir, _ARCHIVE_DIR.value, unofficial=_UNOFFICIAL.value)
  builder = prepared.make_builder(name, data_dir)
  splits = {split: info.num_examples for split, info in builder.info.splits.items()}
  shard_manifest.check(path, splits, hash_bytes=math.inf if _VERIFY.value else 0)
  said = ('already ' if there else '') + 'prepared' + (' and verified' if _VERIFY.value else '')
  counts = ', '.join(f'{split} {count}' for split, count in splits.items())
  print(f'{builder.name}: {said} in {path} ({counts})')
  if not shard_manifest.describes(shard_manifest.read(path)):
    manifest = f'{path}/{shard_manifest.NAME}'
    print(
      f'{builder.name}: its manifest, of an earlier version, leaves out the names of the classes; '
      f'delete {manifest} and run this again to have them compared too'
    )


if __name__ == '__main__':
  cli.run(main)
