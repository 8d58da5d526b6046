"""The prediction command: what a trained network sees in images.

python -m bitnet_jax.predict --workdir=DIR IMAGE... [--csv=F]

Images are JPEG or PNG files, cropped as in the run's evaluation. Prints for each the most probable
classes; --csv writes them to a file.
"""

from __future__ import annotations

import errno
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from absl import app, flags

from bitnet_jax import errors
from bitnet_jax.runtime import cli, interrupt, path_flags

_TOP = 5
_BATCH = 32


def predict(
  workdir: str, paths: Sequence[str], *, step: int = 0
) -> Iterator[tuple[str, list[tuple[str, float]]]]:
  """Yields (path, [(class, probability), ...]), the most probable class first.

  Args:
    workdir: of the run.
    paths: of images.
    step: of the checkpoint; 0 for the newest.

  Raises:
    CheckpointError: no such run or checkpoint.
    DataError: an image cannot be read.
  """
  import jax.numpy as jnp

  from bitnet_jax import onednn
  from bitnet_jax.checkpoints import pretrained
  from bitnet_jax.data.images import augment
  from bitnet_jax.inference import predictor
  from bitnet_jax.models import build

  onednn.spin()
  network = pretrained.load(workdir, step)
  mean, std = network.config.data.mean, network.config.data.std
  model = build.make_model(network.config, len(network.class_names), '')
  size = _image_size(workdir, network)
  batch_size = min(_BATCH, len(paths))
  shape = (size, size, len(mean))
  logits = predictor.make_predictor(model, network.variables, shape, batch_size)
  for start in range(0, len(paths), batch_size):
    part = paths[start : start + batch_size]
    images = np.stack([_read(path, network.config, size) for path in part])
    inputs = augment.normalize(jnp.asarray(images), mean, std)
    for path, row in zip(part, _softmax(logits(inputs)), strict=True):
      best = np.argsort(-row, kind='stable')[:_TOP]
      yield path, [(network.class_names[i], float(row[i])) for i in best]


def _softmax(logits: np.ndarray) -> np.ndarray:
  powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
  return powers / powers.sum(axis=-1, keepdims=True)


def _image_size(workdir: str, network: Any) -> int:
  from bitnet_jax.checkpoints import pretrained

  shape = network.image_shape or pretrained.read_run(workdir)['derived']['image_shape']
  return network.config.data.image_size or shape[0]


def _read(path: str, config: Any, size: int) -> np.ndarray:
  from bitnet_jax.data.images import crop

  try:
    encoded = pathlib.Path(path).read_bytes()
  except OSError as error:
    raise errors.DataError('image', path, str(error.strerror), 'name an image file') from error
  resize = config.eval.resize
  cut = crop.Crop(
    'resize' if resize else 'fit', size, resize=resize, antialias=config.data.antialias
  )
  return cut(encoded, len(config.data.mean), path, np.zeros(crop.NUM_RANDOM_BITS, np.uint64))


def define_flags() -> None:
  """Defines the command's flags."""
  path_flags.define('workdir', None, 'Work directory of the run.', required=True)
  flags.DEFINE_integer('step', 0, 'Step of the checkpoint; 0: the newest.', lower_bound=0)
  path_flags.define('csv', '', 'File to write the predictions to.')


def main(argv: list[str]) -> int:
  """Predicts the classes of the images that the arguments name."""
  if not argv[1:]:
    raise app.UsageError('no image is named')
  table = pathlib.Path(flags.FLAGS.csv)
  if flags.FLAGS.csv:
    _check_table(table)
  interrupt.load('bitnet_jax.models.build', 'bitnet_jax.checkpoints.pretrained')
  rows = []
  for path, classes in predict(flags.FLAGS.workdir, argv[1:], step=flags.FLAGS.step):
    print(f'{path}: ' + ', '.join(f'{name} {share:.1%}' for name, share in classes))
    rows += [[path, rank, name, share] for rank, (name, share) in enumerate(classes, start=1)]
  if flags.FLAGS.csv:
    from bitnet_jax.runtime import files

    try:
      files.write_csv(table, ['image', 'rank', 'class', 'probability'], rows)
    except OSError as error:
      problem, remedy = str(error.strerror), errors.remedy_of(error.errno)
      raise errors.StorageError('csv', table, problem, remedy) from error
  return 0


def _check_table(table: pathlib.Path) -> None:
  """Raises UserError where the table cannot be written: said before the work, not after it."""
  if not table.parent.is_dir():
    raise errors.ConfigError('csv', table, 'no such directory', 'make it or name another')
  if table.is_dir():
    raise errors.ConfigError('csv', table, 'is a directory', 'name a file')
  if not os.access(table if table.exists() else table.parent, os.W_OK):
    remedy = errors.remedy_of(errno.EACCES)
    raise errors.StorageError('csv', table, 'cannot be written', remedy)


if __name__ == '__main__':
  define_flags()
  cli.run(main, takes_arguments=True)
