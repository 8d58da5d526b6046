"""Checkpoints that are not whole are moved out of sight before anything in them is read."""

from __future__ import annotations

import contextlib
import itertools
import pathlib
import re
import sys

from bitnet_jax import errors, manifest

_FOLDER = 'damaged'


def steps_on_disk(directory: pathlib.Path) -> list[int]:
  """Steps that have a folder, whole or not, oldest first."""
  if not directory.is_dir():
    return []
  names = [path.name for path in directory.iterdir()]
  return sorted(int(name) for name in names if re.fullmatch(r'0|[1-9]\d*', name))  # As Orbax.


def set_aside(workdir: pathlib.Path) -> set[int]:
  """Moves all steps that are not whole to `damaged`, a line each; gives the others.

  Nothing is deleted: a step that a kill left half deleted looks like one that lost a file.

  Raises:
    CheckpointError: there were steps, and not one of them is whole.
    StorageError: they cannot be read or moved.
  """
  directory, manifests = workdir / 'checkpoints', workdir / 'manifests'
  try:
    steps, listed = steps_on_disk(directory), list(manifests.glob('*.json'))
  except OSError as error:
    problem = f'cannot be read ({error.strerror or error})'
    remedy = 'make it readable and run again'
    raise errors.StorageError('checkpoints', directory, problem, remedy) from error
  if steps and not manifests.is_dir():
    raise _none_whole(directory, 'not checkpoints of bitnet_jax: there are no manifests')
  faults = {
    step: manifest.problem(directory / str(step), manifests / f'{step}.json') for step in steps
  }
  whole = {step for step, fault in faults.items() if not fault}
  # Only the first save of a run can be killed and leave a step, but no manifest of any.
  first = len(steps) == 1 and not listed
  if (steps or listed) and not whole and not first:
    told = [f'step {step}: {fault}' for step, fault in sorted(faults.items(), reverse=True)]
    found = ', '.join(told) or 'there are manifests alone'
    raise _none_whole(directory, f'no step is whole ({found})')
  newest = max(whole, default=None)
  for step in sorted(faults.keys() - whole, reverse=True):
    where = f'{_FOLDER}/{_move(workdir, step)}, which may be deleted if nobody needs it'
    text = f'step {step}: {faults[step]}; moved to {where}'
    if newest is None or step > newest:
      text += f'; using step {newest}' if whole else '; none is left'
    print('bitnet_jax: warning:', *text.split(), file=sys.stderr)  # One line, whatever the names.
  return whole


def _none_whole(directory: pathlib.Path, problem: str) -> errors.CheckpointError:
  remedy = 'restore them, or take a new --workdir'
  return errors.CheckpointError('checkpoints', directory, problem, remedy)


def _move(workdir: pathlib.Path, step: int) -> str:
  """Moves a step and its manifest; gives its name there."""
  folder, source = workdir / _FOLDER, workdir / 'checkpoints' / str(step)
  try:
    folder.mkdir(exist_ok=True)
    used = {path.name.split('-')[0] for path in folder.iterdir()}
    number = next(str(n) for n in itertools.count() if str(n) not in used)
    name = f'{number}-step-{step}'
    source.rename(folder / name)
    with contextlib.suppress(FileNotFoundError):
      (workdir / 'manifests' / f'{step}.json').rename(folder / f'{name}.json')
  except OSError as error:
    problem = f'damaged step {step} cannot be moved to {folder} ({error.strerror or error})'
    remedy = f'move {source} elsewhere'
    raise errors.StorageError('workdir', workdir, problem, remedy) from error
  return name
