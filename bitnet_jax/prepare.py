"""Prepares a data set for training: writes it as ArrayRecord, through tfds.

  python -m bitnet_jax.prepare --dataset=cifar10 --data_dir=DIR [--archive_dir=DIR]

Needs a network for CIFAR only, and only without --archive_dir. Archives are
checked against their published SHA-256. Safe to interrupt and to run again. A
folder of images (train/CLASS/*.jpg) needs no preparing.
"""

from __future__ import annotations

import logging
import sys

import tensorflow_datasets as tfds
from absl import flags
from absl import logging as absl_logging

from bitnet_jax import cli
from bitnet_jax.data import builders, prepared

_DATASET = flags.DEFINE_enum(
  'dataset', None, list(builders.BUILDERS), 'Which data set.', required=True
)
_DATA_DIR = flags.DEFINE_string(
  'data_dir', '', 'Where to write; empty: $TFDS_DATA_DIR or ~/tensorflow_datasets.'
)
_ARCHIVE_DIR = flags.DEFINE_string(
  'archive_dir', '', 'Where the official archives are; empty: download them.'
)


def main(argv: list[str]) -> None:
  """Prepares the data set that the flags name and says where it is."""
  del argv
  absl_logging.set_verbosity(absl_logging.WARNING)
  logging.getLogger('urllib3').setLevel(logging.ERROR)  # It warns at every retry.
  if not sys.stderr.isatty():
    tfds.disable_progress_bar()
  name = _DATASET.value
  already = prepared.is_prepared(prepared.make_builder(name, _DATA_DIR.value))
  path = prepared.prepare(name, _DATA_DIR.value, _ARCHIVE_DIR.value)
  splits = prepared.open_builder(name, _DATA_DIR.value).info.splits
  counts = ', '.join(f'{split} {info.num_examples}' for split, info in splits.items())
  print(f'{name}: {"already prepared" if already else "prepared"} in {path} ({counts})')


if __name__ == '__main__':
  cli.run(main)
