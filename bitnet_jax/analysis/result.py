"""Where the checkpoint of a finished run is, and its result in one line.

    python -m bitnet_jax.analysis.result --workdir=runs/quickstart

reads `result.json`, which a run writes at its end.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping, Sequence

from absl import flags

from bitnet_jax import cli, errors, paths


def read(workdir: str) -> dict:
  """Reads what the run found at its end.

  Args:
    workdir: directory of the run.

  Returns:
    The fields of `result.json`.

  Raises:
    DataError: the run has not finished, or the file is damaged.
  """
  path = pathlib.Path(workdir) / 'result.json'
  try:
    result = json.loads(path.read_text(encoding='utf-8'))
    describe(result)
  except (FileNotFoundError, NotADirectoryError):
    raise errors.DataError(
      'workdir', workdir, 'has no result.json', 'run the training to its end'
    ) from None
  except (ValueError, KeyError, TypeError) as error:
    raise errors.DataError(
      'result', path, f'cannot be read ({error!r})', 'delete it and run the training again'
    ) from None
  return result


def describe(result: Mapping) -> str:
  """One line: error and accuracy in percent, the counts, the training's seconds."""
  accuracy = 100 * result['correct'] / result['count']
  return (
    f'{result["split"]} error {100 - accuracy:.2f} % (accuracy {accuracy:.2f} %, '
    f'{result["correct"]} of {result["count"]} images) '
    f'after {result["epoch"]:g} epochs, {result["train_seconds"]:.1f} s of training'
  )


def main(argv: Sequence[str]) -> None:
  """Prints checkpoint and result of the run that the flag names."""
  del argv
  result = read(flags.FLAGS.workdir)
  print(f'checkpoint: {result["checkpoint"]}')
  print(describe(result))


if __name__ == '__main__':
  paths.define('workdir', None, 'Directory of a finished run.', required=True)
  cli.run(main)
