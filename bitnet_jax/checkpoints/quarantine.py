"""Moves checkpoints that are not whole out of the way before anything in them is read."""

from __future__ import annotations

import contextlib
import itertools
import pathlib

from bitnet_jax import errors
from bitnet_jax.checkpoints import layout, manifest
from bitnet_jax.runtime import output

MISSING = 'is missing'


def find_fault(workdir: pathlib.Path, step: int) -> str:
  """Returns what is wrong with a step, '' if nothing is; see `manifest.find_fault`."""
  folder, listed = workdir / layout.CHECKPOINTS, workdir / layout.MANIFESTS
  return manifest.find_fault(folder / str(step), listed / f'{step}.json')


def missing_steps(steps: list[int], listed: list[int]) -> list[int]:
  """Returns steps whose manifest alone is left and that are newer than all others.

  Older ones were deleted to make room.
  """
  return [step for step in listed if step > max(steps, default=-1)]


def warn_of_older(step: int, fault: str, used: int | None) -> None:
  """Warns that an older step is used, and what is wrong with the newer one."""
  colon = '' if fault == MISSING else ':'
  output.warn(f'step {step}{colon} {fault}; using step {used}')


def quarantine(workdir: pathlib.Path) -> set[int]:
  """Moves all steps that are not whole to `damaged`, a line each; gives the others.

  Nothing is deleted: a step that a kill left half deleted looks like one that lost a file.

  Raises:
    CheckpointError: there were steps, and not one of them is whole; or what lies there is not what
      a run leaves.
    StorageError: they cannot be read or moved.
  """
  directory = workdir / layout.CHECKPOINTS
  steps, listed = layout.list_steps(workdir)
  if steps and not (workdir / layout.MANIFESTS).is_dir():
    raise _none_whole(directory, 'not checkpoints of bitnet_jax: there are no manifests')
  faults = {step: find_fault(workdir, step) for step in steps}
  whole = {step for step in steps if not faults[step]}
  # Only the first save of a run can be killed and leave a step, but no manifest of any.
  first = len(steps) == 1 and not listed
  if (steps or listed) and not whole and not first:
    told = [f'step {step}: {faults[step]}' for step in reversed(steps) if faults[step]]
    found = ', '.join(told) or 'there are manifests alone'
    raise _none_whole(directory, f'no step is whole ({found})')
  newest = max(whole, default=None)
  for step in reversed(missing_steps(steps, listed)):
    warn_of_older(step, MISSING, newest)
  for step in sorted(faults.keys() - whole, reverse=True):
    where = f'{layout.DAMAGED}/{_move(workdir, step)}, which may be deleted if nobody needs it'
    text = f'step {step}: {faults[step]}; moved to {where}'
    if newest is None or step > newest:
      text += f'; using step {newest}' if whole else '; none is left'
    output.warn(text)
  return whole


def _none_whole(directory: pathlib.Path, problem: str) -> errors.CheckpointError:
  remedy = 'restore them, or take a new --workdir'
  return errors.CheckpointError('checkpoints', directory, problem, remedy)


def _move(workdir: pathlib.Path, step: int) -> str:
  """Moves a step and its manifest; gives its name there."""
  folder, source = workdir / layout.DAMAGED, workdir / layout.CHECKPOINTS / str(step)
  try:
    folder.mkdir(exist_ok=True)
    used = {path.name.split('-')[0] for path in folder.iterdir()}
    number = next(str(n) for n in itertools.count() if str(n) not in used)
    name = f'{number}-step-{step}'
    source.rename(folder / name)
    with contextlib.suppress(FileNotFoundError):
      (workdir / layout.MANIFESTS / f'{step}.json').rename(folder / f'{name}.json')
  except OSError as error:
    problem = f'damaged step {step} cannot be moved to {folder} ({error.strerror or error})'
    remedy = f'move {source} elsewhere'
    raise errors.StorageError('workdir', workdir, problem, remedy) from error
  return name
