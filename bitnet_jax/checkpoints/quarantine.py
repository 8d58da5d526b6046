"""Moves damaged checkpoints to `damaged/` before Orbax opens any of their files."""

from __future__ import annotations

import contextlib
import itertools
import pathlib

from bitnet_jax import errors
from bitnet_jax.checkpoints import layout, manifest
from bitnet_jax.runtime import output

MISSING = 'is missing'


def find_fault(workdir: pathlib.Path, step: int) -> str:
  """Returns how a step differs from its manifest, as `manifest.find_fault` does."""
  folder, manifests = workdir / layout.CHECKPOINTS, workdir / layout.MANIFESTS
  return manifest.find_fault(folder / str(step), manifests / f'{step}.json')


def missing_steps(steps: list[int], listed: list[int]) -> list[int]:
  """Returns the steps whose folder was lost: they have a manifest and are newer than any folder.

  Older steps without a folder were deleted to make room.

  Args:
    steps: steps with a folder, as `layout.list_steps` lists them.
    listed: steps with a manifest.
  """
  return [step for step in listed if step > max(steps, default=-1)]


def warn_of_older(step: int, fault: str, used: int | None) -> None:
  """Warns that the older step `used` replaces a damaged `step`, and what its fault is."""
  colon = '' if fault == MISSING else ':'
  output.warn(f'step {step}{colon} {fault}; using step {used}')


def quarantine(workdir: pathlib.Path) -> set[int]:
  """Moves all damaged steps to `damaged/` with a warning each, and returns the whole steps.

  No file is deleted: a step that a kill left half deleted looks like a step that lost a file.

  Raises:
    CheckpointError: no step is whole, though steps exist; or an entry is none that a run makes.
    StorageError: a step cannot be read or moved.
  """
  directory = workdir / layout.CHECKPOINTS
  steps, listed = layout.list_steps(workdir)
  if steps and not (workdir / layout.MANIFESTS).is_dir():
    raise _none_whole(directory, 'not checkpoints of bitnet_jax: there are no manifests')
  faults = {step: find_fault(workdir, step) for step in steps}
  whole = {step for step in steps if not faults[step]}
  # Only the first save of a run, when killed, leaves a step and no manifest at all.
  first = len(steps) == 1 and not listed
  if (steps or listed) and not whole and not first:
    reasons = ', '.join(f'step {step}: {faults[step]}' for step in reversed(steps))
    problem = f'no step is whole ({reasons or "there are manifests alone"})'
    raise _none_whole(directory, problem)
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
  """Moves a step and its manifest, and returns the step's name in `damaged/`."""
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
