"""Predicts the classes of images with a trained network: the prediction command.

python -m bitnet_jax.predict --workdir=DIR IMAGE... [--csv=F]

Images are JPEG or PNG files, cropped as in the run's evaluation. Prints for each the most probable
classes; --csv writes them to a file.
"""

from __future__ import annotations

import errno
import os
import pathlib

from absl import app, flags

from bitnet_jax import errors
from bitnet_jax.runtime import cli, interrupt, path_flags


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
  interrupt.load('bitnet_jax.inference.predict_images')
  from bitnet_jax.inference import predict_images
  from bitnet_jax.runtime import files

  rows = []
  for path, classes in predict_images.predict(flags.FLAGS.workdir, argv[1:], step=flags.FLAGS.step):
    print(f'{path}: ' + ', '.join(f'{name} {share:.1%}' for name, share in classes))
    rows += [[path, rank, name, share] for rank, (name, share) in enumerate(classes, start=1)]
  if flags.FLAGS.csv:
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
