"""Errors of finished runs, matched to the rows of the paper's tables."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from bitnet_jax import errors
from bitnet_jax.analysis.audit import paper
from bitnet_jax.analysis.audit.networks import Network
from bitnet_jax.analysis.plotting import metric_rows
from bitnet_jax.config import fields, recipes
from bitnet_jax.logs import result

# Recipe fields that do not make a run another experiment, and those that name the data.
_FREE = ('seed', 'data.name', 'data.pipeline')
# Fields that may change when a run is resumed, and make it another experiment all the same.
_COUNTED = (
  'num_epochs',
  'data.test_split',
  'data.on_error',
  'data.max_skipped',
  'eval.resize',
  'init_from',
)
# Images of the test splits that the paper's errors are of.
_TEST_IMAGES = {paper.CIFAR10: 10000, paper.CIFAR100: 10000, paper.SINGLE_CROP: 50000}
_SIZES = ('name', 'width', 'tree_depth', 'num_blocks', 'width_factor')


@dataclasses.dataclass(frozen=True)
class FinishedRun:
  """A finished run.

  Attributes:
    workdir: where it lies.
    network: what was trained.
    data: the data set, `config.data.name`.
    seed: of the run.
    epochs: trained.
    error: of the test split, in percent.
    train_error: of the training split as `evaluate --split=train` found it, else the mean over the
      last epoch's batches, augmented; in percent, None if there is neither.
    ten_crop_error: of the test split as `evaluate --crops=10` found it, in percent, or None.
    departures: fields that differ from the paper's recipe, as 'field=value', and 'test
      images=COUNT' of a split that is not the paper's.
  """

  workdir: str
  network: Network
  data: str
  seed: int
  epochs: float
  error: float
  train_error: float | None
  ten_crop_error: float | None
  departures: tuple[str, ...]

  def value(self, cell: str) -> float | None:
    """The error of a cell of a table, in percent; None where this run has none for it."""
    if cell == paper.CIFAR100_TRAIN and self.data == 'cifar100':
      return self.train_error
    if cell == paper.TEN_CROP and self.data == paper.SINGLE_CROP:
      return self.ten_crop_error
    return self.error if cell == self.data else None

  def describe(self) -> dict[str, Any]:
    """The run as a JSON object."""
    return {
      **dataclasses.asdict(self),
      'network': str(self.network),
      'departures': list(self.departures),
    }


def find(directories: Sequence[str]) -> list[FinishedRun]:
  """Reads the runs of several directories.

  Args:
    directories: each a work directory, or a folder of work directories.

  Raises:
    DataError: there is no finished run in one of them, or a run's files are damaged.
  """
  runs = []
  for directory in directories:
    path = pathlib.Path(directory)
    inside = sorted(found.parent for found in path.glob('*/result.json'))
    if (path / 'result.json').exists() or not inside:
      inside = [path]
    runs += [read(str(workdir)) for workdir in inside]
  return list({run.workdir: run for run in runs}.values())


def read(workdir: str) -> FinishedRun:
  """Reads one finished run.

  Raises:
    DataError: it has not finished, or a file of it is damaged.
  """
  final = result.read(workdir)
  config = read_config(workdir)
  try:
    train = metric_rows.select(metric_rows.read_rows(workdir), 'epoch', 'error', scale=100).values
  except errors.DataError:
    train = []
  split = config['data']['train_split']
  exact_train = _evaluation(workdir, split, 1, final['step'])
  expected = _TEST_IMAGES.get(config['data']['name'], final['count'])
  other = () if final['count'] == expected else (f'test images={final["count"]}',)
  return FinishedRun(
    workdir=workdir,
    network=network_of(config['model']),
    data=config['data']['name'],
    seed=config['seed'],
    epochs=final['epoch'],
    error=100 * (final['count'] - final['correct']) / final['count'],
    train_error=train[-1] if train and exact_train is None else exact_train,
    ten_crop_error=_evaluation(workdir, final['split'], 10, final['step']),
    departures=(*departures(config), *other),
  )


def _evaluation(workdir: str, split: str, crops: int, step: int) -> float | None:
  """Error in percent that `evaluate` wrote down of a split at a step; None if it did not."""
  for path in sorted(pathlib.Path(workdir, 'evaluation').glob('*.json')):
    try:
      found = json.loads(path.read_text(encoding='utf-8'))
      if (found['split'], found['crops'], found['step']) == (split, crops, step):
        return 100 * (found['count'] - found['correct']) / found['count']
    except (ValueError, KeyError, TypeError) as error:
      raise errors.DataError(
        'evaluation', path, f'cannot be read ({error!r})', 'delete it and evaluate again'
      ) from None
  return None


def read_config(workdir: str) -> dict[str, Any]:
  """Reads the configuration that a run wrote down.

  Raises:
    DataError: it is missing or damaged.
  """
  path = pathlib.Path(workdir) / 'config.json'
  try:
    config = json.loads(path.read_text(encoding='utf-8'))
    network_of(config['model'])
    if not isinstance(config['seed'], int) or not isinstance(config['data']['name'], str):
      raise TypeError('seed or data.name')
    return config
  except (FileNotFoundError, NotADirectoryError):
    raise errors.DataError(
      'workdir', workdir, 'has no config.json', 'give the work directory of a run'
    ) from None
  except (ValueError, KeyError, TypeError) as error:
    raise errors.DataError(
      'config', path, f'cannot be read ({error!r})', 'train again into another --workdir'
    ) from None


def network_of(model: Mapping[str, Any]) -> Network:
  """The network that the `model` section of a configuration names."""
  name = model['name']
  if name in fields.CIFAR_MODELS:
    return Network(name, model['width'], model['tree_depth'], model['num_blocks'])
  wide = name.startswith('resnet')
  return Network(name, width_factor=model['width_factor'] if wide else 1.0)


def departures(config: Mapping[str, Any]) -> tuple[str, ...]:
  """Fields that differ from the paper's recipe for the data set, as 'field=value'.

  Fields that either side lacks are left out: configurations of older versions stay comparable.
  """
  recipe = recipes.recipe_of(config['data']['name'])
  found = []
  for field, value in fields.flatten(config):
    section, _, leaf = field.rpartition('.')
    free = field in _FREE or (section == 'model' and leaf in _SIZES)
    if fields.role_of(field) in (fields.RUNTIME, fields.PROCESS) and field not in _COUNTED:
      free = True
    value = tuple(value) if isinstance(value, list) else value
    if not free and field in recipe and recipe[field] != value:
      found.append(f'{field}={value}')
  return tuple(found)


def summarize(runs: Sequence[FinishedRun], network: Network, cell: str) -> list[dict[str, Any]]:
  """Means over the seeds of a cell, one for each way of training, the closest to the paper first.

  Args:
    runs: of any networks.
    network: of the row.
    cell: of the row.

  Returns:
    JSON objects: 'mean' and 'std' in percent (std of the sample, None of a single run), 'runs',
    'seeds', 'epochs', 'departures' and 'workdirs'.
  """
  groups: dict[tuple[Any, ...], list[FinishedRun]] = {}
  for run in runs:
    if run.network == network and run.value(cell) is not None:
      groups.setdefault((run.departures, run.epochs), []).append(run)
  ordered = sorted(groups.items(), key=lambda item: (len(item[0][0]), -item[0][1]))
  return [_mean(group, cell) for _, group in ordered]


def _mean(group: Sequence[FinishedRun], cell: str) -> dict[str, Any]:
  values = [value for run in group if (value := run.value(cell)) is not None]
  return {
    'mean': statistics.fmean(values),
    'std': statistics.stdev(values) if len(values) > 1 else None,
    'runs': len(values),
    'seeds': [run.seed for run in group],
    'epochs': group[0].epochs,
    'departures': list(group[0].departures),
    'workdirs': [run.workdir for run in group],
  }
