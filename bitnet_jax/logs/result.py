"""Writes, reads and describes `result.json`, which a run leaves at its end."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections

from bitnet_jax import errors
from bitnet_jax.runtime import files


def write(
  config: ml_collections.ConfigDict,
  workdir: str,
  plan: Any,
  evaluation: dict[str, float],
  seconds: float,
  checkpoints: Any,
) -> dict[str, Any]:
  """Writes `result.json` and returns what it holds."""
  result = {
    'split': config.data.test_split,
    **evaluation,
    'step': plan.total_steps,
    'epoch': plan.total_steps / plan.steps_per_epoch,
    'train_seconds': seconds,
    'checkpoint': checkpoints.path(plan.total_steps),
    'best_checkpoint': checkpoints.path(checkpoints.best_step() or plan.total_steps),
  }
  files.write_json(pathlib.Path(workdir) / 'result.json', result)
  return result


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
  """Returns one line: error and accuracy in percent, the counts, the training's seconds."""
  accuracy = 100 * result['correct'] / result['count']
  return (
    f'{result["split"]} error {100 - accuracy:.2f} % (accuracy {accuracy:.2f} %, '
    f'{result["correct"]} of {result["count"]} images) '
    f'after {result["epoch"]:g} epochs, {result["train_seconds"]:.1f} s of training'
  )
