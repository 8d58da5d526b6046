"""Evaluates a saved network on any split and writes the results."""

from __future__ import annotations

import errno
import os
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from bitnet_jax import errors
from bitnet_jax.checkpoints import pretrained
from bitnet_jax.config import validation
from bitnet_jax.data import pipeline, splits
from bitnet_jax.distributed import devices
from bitnet_jax.models import build
from bitnet_jax.runtime import files
from bitnet_jax.training import evaluation

# Fields that a flag of this command changes, and that flag.
_FLAGS = {
  'config.data.dir': 'data_dir',
  'config.eval.batch_size': 'batch_size',
  'config.eval.resize': 'resize',
  'config.data.workers': 'workers',
}


def evaluate(
  workdir: str, *, split: str = '', crops: int = 1, step: int = 0, **overrides: Any
) -> dict[str, Any]:
  """Evaluates a checkpoint of a run and writes the results.

  Args:
    workdir: of the run.
    split: '' for the run's test split.
    crops: 1 or 10.
    step: of the checkpoint; 0 for the newest.
    **overrides: values of `data_dir`, `batch_size`, `resize` and `workers` other than the run's.

  Returns:
    What the JSON file holds.

  Raises:
    UserError: run, data or devices are at fault.
  """
  network = pretrained.load(workdir, step)
  config = network.config
  override(config, **overrides)
  _validate(config, overrides)
  _check_batch(config.eval.batch_size, jax.device_count())
  split = split or config.data.test_split
  data = pipeline.open_evaluation(config, splits.open_split(config, split), crops=crops)
  if data.class_names != network.class_names:
    problem = f'has {len(data.class_names)} classes, others than the {len(network.class_names)}'
    raise errors.DataError('split', split, f'{problem} of the run', 'name the data set of the run')
  model = build.make_model(config, len(network.class_names), devices.AXIS)
  folder = _make_folder(workdir)
  run = evaluation.Evaluator(
    model,
    data,
    mean=config.data.mean,
    std=config.data.std,
    batch_size=config.eval.batch_size,
    batch_field='batch_size',
    by_class=True,
  )
  data.load()
  values = run(devices.replicate(network.variables))
  data.close()
  counts = {name: values.pop(name) for name in list(values) if np.ndim(values[name])}
  result = {'split': split, 'crops': crops, 'step': network.step, **values}
  result['examples'] = data.num_examples
  result['passed_over'] = {str(step): fault for step, fault in network.passed_over.items()}
  stem = re.sub(r'[^\w.%-]+', '_', f'{split}_{crops}crop_step{network.step}')
  files.write_json(folder / f'{stem}.json', result)
  for name, table in (('classes', class_table), ('confusion', confusion_table)):
    files.write_csv(folder / f'{stem}_{name}.csv', *table(network.class_names, counts))
  return {**result, 'file': str(folder / f'{stem}.json')}


def override(
  config: ml_collections.ConfigDict,
  data_dir: str = '',
  batch_size: int = 0,
  resize: int = 0,
  workers: int = -1,
) -> None:
  """Changes the fields that an evaluation may choose; a default argument changes nothing."""
  config.data.dir = data_dir or config.data.dir
  config.eval.batch_size = batch_size or config.eval.batch_size
  if resize:
    config.eval.resize, config.data.pipeline = resize, 'stream'
    config.steps_per_execution = 0  # Of training, which alone is not for the stream.
  if workers >= 0:
    config.data.workers = workers


def _validate(config: ml_collections.ConfigDict, overrides: dict[str, Any]) -> None:
  """Raises ConfigError under the name of the flag where one is at fault."""
  try:
    validation.validate(config)
  except errors.ConfigError as error:
    flag = _FLAGS.get(error.field)
    if flag is None or flag not in overrides:
      raise
    raise error.named(flag, overrides[flag]) from error


def _make_folder(workdir: str) -> pathlib.Path:
  """Makes the folder for the results before the work, so that a fault costs nothing."""
  folder = pathlib.Path(workdir) / 'evaluation'
  try:
    folder.mkdir(exist_ok=True)
  except OSError as error:
    problem, remedy = str(error.strerror), errors.remedy_of(error.errno)
    raise errors.StorageError('evaluation', folder, problem, remedy) from error
  if not os.access(folder, os.W_OK):
    remedy = errors.remedy_of(errno.EACCES)
    raise errors.StorageError('evaluation', folder, 'cannot be written', remedy)
  return folder


def _check_batch(batch_size: int, num_devices: int) -> None:
  if batch_size % num_devices:
    problem = f'not divisible by {num_devices} devices'
    remedy = f'use {max(1, batch_size // num_devices) * num_devices}'
    raise errors.ConfigError('batch_size', batch_size, problem, remedy)


def class_table(
  class_names: Sequence[str], counts: dict[str, np.ndarray]
) -> tuple[list[str], Iterable[list[Any]]]:
  """Returns header and rows of the error of each class; empty for a class without examples."""
  header = ['class', 'examples', 'error', 'error_top5']
  rows = []
  for label, name in enumerate(class_names):
    count = int(counts['class_count'][label])
    correct = (counts[key][label] for key in ('class_correct', 'class_correct_top5'))
    rows.append([name, count, *(1 - int(right) / count if count else '' for right in correct)])
  return header, rows


def confusion_table(
  class_names: Sequence[str], counts: dict[str, np.ndarray]
) -> tuple[list[str], Iterable[list[Any]]]:
  """Returns header and rows (class, predicted class, count), without the pairs that never occur."""
  confusion = counts['confusion']
  rows = ([class_names[i], class_names[j], int(confusion[i, j])] for i, j in np.argwhere(confusion))
  return ['class', 'predicted', 'count'], rows
