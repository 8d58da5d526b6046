"""Lists the steps of a work directory, and refuses strange entries before any file is opened."""

from __future__ import annotations

import pathlib
import re
import stat

from bitnet_jax import errors

CHECKPOINTS, MANIFESTS, DAMAGED = 'checkpoints', 'manifests', 'damaged'
_STEP = '(?P<step>0|[1-9][0-9]*)'  # As Orbax writes it.
_NAMES = {
  CHECKPOINTS: re.compile(rf'{_STEP}(?P<leftover>\.orbax-checkpoint-tmp(-[0-9]+)?)?'),
  MANIFESTS: re.compile(rf'(?P<leftover>\.)?{_STEP}\.json(?(leftover)\.tmp)'),
}
# Files that Orbax needs to read a step. Orbax leaves the last one out of a checkpoint whose path
# it takes for a pattern.
_PARTS = (
  '_CHECKPOINT_METADATA',
  'metrics/metrics',
  'record/metadata',
  'state/_METADATA',
  'state/manifest.ocdbt',
)


def list_steps(workdir: pathlib.Path) -> tuple[list[int], list[int]]:
  """Returns the steps that have a folder and the steps that have a manifest, each oldest first.

  Whether a step is whole is for `manifest.find_fault` to judge.

  Raises:
    CheckpointError: an entry is strange, as `check` describes.
    StorageError: the directories cannot be read.
  """
  try:
    check(workdir)
    return steps_of(workdir, CHECKPOINTS), steps_of(workdir, MANIFESTS)
  except OSError as error:
    problem = f'cannot be read ({error.strerror or error})'
    remedy = 'make it readable and run again'
    raise errors.StorageError('checkpoints', workdir / CHECKPOINTS, problem, remedy) from error


def steps_of(workdir: pathlib.Path, folder: str) -> list[int]:
  """Returns the steps with an entry in `folder`, oldest first.

  Args:
    workdir: directory of the run.
    folder: `CHECKPOINTS` or `MANIFESTS`.

  Raises:
    OSError: the folder exists and cannot be listed.
  """
  names = _NAMES[folder]
  try:
    matches = [names.fullmatch(path.name) for path in (workdir / folder).iterdir()]
  except FileNotFoundError:
    return []
  return sorted(int(match['step']) for match in matches if match and not match['leftover'])


def check(workdir: pathlib.Path) -> None:
  """Checks the kinds and names of entries, and opens none: a link may lead out of the directory.

  Raises:
    CheckpointError: a directory is a link or a file, or holds an entry that no save makes.
    OSError: the directories cannot be listed.
  """
  if (workdir / DAMAGED).is_symlink():
    raise _refused(workdir / DAMAGED, 'is a link')
  for folder, names in _NAMES.items():
    place = workdir / folder
    try:
      if not stat.S_ISDIR(place.lstat().st_mode):
        raise _refused(place, 'is a link or no directory')
    except FileNotFoundError:
      continue
    for path in sorted(place.iterdir()):
      _check_entry(path, names.fullmatch(path.name), folder == CHECKPOINTS)


def _check_entry(path: pathlib.Path, match: re.Match[str] | None, directory: bool) -> None:
  if not match:
    raise _refused(path, 'does not belong there')
  if not match['leftover']:
    return
  try:
    mode = path.lstat().st_mode
  except FileNotFoundError:  # A save that goes on has renamed its temporary file by now.
    return
  if not (stat.S_ISDIR(mode) if directory else stat.S_ISREG(mode)):
    raise _refused(path, 'is not what a save leaves')


def _refused(path: pathlib.Path, problem: str) -> errors.CheckpointError:
  remedy = 'move it out of the work directory, or take a new --workdir'
  return errors.CheckpointError('checkpoints', path, problem, remedy)


def missing_part(step: pathlib.Path) -> str:
  """Returns the first file that is missing in a step and that Orbax needs; '' if none is."""
  return next((part for part in _PARTS if not (step / part).is_file()), '')
