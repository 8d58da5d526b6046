"""Matches the errors of finished runs to the rows of the paper's tables, for audit and figures."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bitnet_jax import errors
from bitnet_jax.analysis.audit import paper
from bitnet_jax.analysis.audit.networks import Network
from bitnet_jax.analysis.plotting import metric_rows
from bitnet_jax.config import defaults, fields, recipes
from bitnet_jax.config.networks import NETWORKS
from bitnet_jax.logs import result

# Fields that name the data, the network or the seed: a run of another value departs in nothing.
_FREE = (
  *('seed', 'data.name', 'data.pipeline', 'model.name', 'model.width'),
  *('model.tree_depth', 'model.num_blocks', 'model.width_factor'),
)
# Fields that a resumed run may change although they make it another experiment.
_COUNTED = (
  'num_epochs',
  'data.test_split',
  'data.on_error',
  'data.max_skipped',
  'eval.resize',
  'init_from',
)
# Sizes of the test splits that the paper's errors were measured on.
_TEST_IMAGES = {paper.CIFAR10: 10000, paper.CIFAR100: 10000, paper.SINGLE_CROP: 50000}


@dataclasses.dataclass(frozen=True)
class FinishedRun:
  """Describes a finished run; its errors are in percent.

  Attributes:
    workdir: its work directory.
    network: the network that it trained.
    data: its data set, `config.data.name`.
    seed: its seed.
    epochs: how long it trained.
    error: its error on the test split.
    train_error: its error on the training split by `evaluate --split=train`, else the mean over the
      last epoch's augmented batches; None where neither was recorded.
    ten_crop_error: its error on the test split by `evaluate --crops=10`, or None.
    departures: fields that differ from the paper's recipe, as 'field=value', and 'test
      images=COUNT' where the split has another size than the paper's.
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
    """Returns the run's error for a cell of a table, in percent, or None."""
    if cell == paper.CIFAR100_TRAIN and self.data == 'cifar100':
      return self.train_error
    if cell == paper.TEN_CROP and self.data == paper.SINGLE_CROP:
      return self.ten_crop_error
    return self.error if cell == self.data else None

  def describe(self) -> dict[str, Any]:
    """Returns the run as a JSON object."""
    replaced = {'network': str(self.network), 'departures': list(self.departures)}
    return dataclasses.asdict(self) | replaced


def find(directories: Sequence[str]) -> list[FinishedRun]:
  """Reads the runs of several directories, each once.

  Args:
    directories: work directories, or folders of work directories.

  Raises:
    DataError: a directory has no finished run, or a run's files are damaged.
  """
  return list({workdir: read(workdir) for workdir in workdirs(directories, 'result.json')}.values())


def workdirs(directories: Sequence[str], file: str) -> Iterator[str]:
  """Yields the work directories that hold a file, looking into folders of work directories."""
  for directory in directories:
    path = pathlib.Path(directory)
    inside = sorted(str(run.parent) for run in path.glob(f'*/{file}'))
    yield from [str(path)] if (path / file).exists() or not inside else inside


def read(workdir: str) -> FinishedRun:
  """Reads one finished run.

  Raises:
    DataError: the run has not finished, or one of its files is damaged.
  """
  final = result.read(workdir)
  config = read_config(workdir)
  train_error = _evaluation(workdir, config['data']['train_split'], 1, final['step'])
  if train_error is None:
    train_error = _last_epoch_error(workdir)
  data, count = config['data']['name'], final['count']
  other = () if count == _TEST_IMAGES.get(data, count) else (f'test images={count}',)
  return FinishedRun(
    workdir=workdir,
    network=network_of(config['model']),
    data=data,
    seed=config['seed'],
    epochs=final['epoch'],
    error=100 * (count - final['correct']) / count,
    train_error=train_error,
    ten_crop_error=_evaluation(workdir, final['split'], 10, final['step']),
    departures=(*departures(config), *other),
  )


def _last_epoch_error(workdir: str) -> float | None:
  try:
    rows = metric_rows.read_rows(workdir)
  except errors.DataError:
    return None
  return next(reversed(metric_rows.select(rows, 'epoch', 'error', scale=100).values), None)


def _evaluation(workdir: str, split: str, crops: int, step: int) -> float | None:
  """Returns the error in percent that `evaluate` recorded of a split at a step, or None."""
  for path in sorted(pathlib.Path(workdir, 'evaluation').glob('*.json')):
    try:
      record = json.loads(path.read_text(encoding='utf-8'))
      if (record['split'], record['crops'], record['step']) == (split, crops, step):
        return 100 * (record['count'] - record['correct']) / record['count']
    except (ValueError, KeyError, TypeError) as error:
      raise errors.DataError(
        'evaluation', path, f'cannot be read ({error!r})', 'delete it and evaluate again'
      ) from None
  return None


def read_config(workdir: str) -> dict[str, Any]:
  """Reads the configuration of a run from `config.json`.

  Raises:
    DataError: the file is missing or damaged.
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
  """Returns the network that the `model` section of a configuration names.

  Raises:
    KeyError: the registry has no network of that name, or the section lacks a size.
  """
  name = model['name']
  return Network(name, **{size: model[size] for size in NETWORKS[name].sizes})


def departures(config: Mapping[str, Any]) -> tuple[str, ...]:
  """Returns the fields that differ from the paper's recipe for the data set, as 'field=value'.

  A field that either side lacks is no departure, so that configurations of older versions stay
  comparable.
  """
  recipe = recipes.recipe_of(config['data']['name'])
  lines = []
  for field, value in defaults.flatten(config):
    value = tuple(value) if isinstance(value, list) else value
    may_change = defaults.role_of(field) in (fields.RUNTIME, fields.PROCESS)
    if field in _FREE or (may_change and field not in _COUNTED):
      continue
    if field in recipe and recipe[field] != value:
      lines.append(f'{field}={value}')
  return tuple(lines)


def summarize(runs: Sequence[FinishedRun], network: Network, cell: str) -> list[dict[str, Any]]:
  """Averages a cell over the seeds, apart for each way of training, the closest to the paper first.

  Args:
    runs: finished runs of any networks.
    network: the network of the row.
    cell: the cell of the row.

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
