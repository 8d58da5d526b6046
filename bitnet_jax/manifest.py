"""SHA-256 manifests: what files a folder must hold, to the last bit.

Orbax restores a checkpoint with a flipped bit without a word (in nine of ten cases the weights are
silently wrong), so each one is verified against its manifest before anything in it is opened.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import stat


def write(folder: pathlib.Path, manifest: pathlib.Path) -> None:
  """Writes the manifest of all files of `folder`; a reader sees it whole or not at all.

  Args:
    folder: what to describe; it must not change any more.
    manifest: the JSON file to write, outside of `folder`.
  """
  files = {
    str(path.relative_to(folder)): {'size': path.stat().st_size, 'sha256': _sha256(path)}
    for path in sorted(folder.rglob('*'))
    if path.is_file()
  }
  manifest.parent.mkdir(parents=True, exist_ok=True)
  temporary = manifest.with_name(f'.{manifest.name}.tmp')
  with temporary.open('w') as file:
    json.dump({'files': files}, file, indent=1)
    file.flush()
    os.fsync(file.fileno())
  os.replace(temporary, manifest)


def problem(folder: pathlib.Path, manifest: pathlib.Path) -> str:
  """What is wrong with `folder`, '' if it is what the manifest says.

  Names, kinds and sizes are compared first, so that neither a link nor a file that does not belong
  there is ever opened.
  """
  try:
    wanted = json.loads(manifest.read_text())['files']
    want = {name: (int(entry['size']), str(entry['sha256'])) for name, entry in wanted.items()}
  except FileNotFoundError:
    return 'it has no manifest, so it was not written whole'
  except (OSError, ValueError, KeyError, TypeError, AttributeError):
    return f'its manifest {manifest.name} is damaged'
  if folder.is_symlink():
    return 'it is a link'
  found: dict[str, os.stat_result] = {}
  for path in sorted(folder.rglob('*')):
    status = path.lstat()
    if stat.S_ISDIR(status.st_mode):
      continue
    name = str(path.relative_to(folder))
    if not stat.S_ISREG(status.st_mode):
      return f'{name} is a link or no plain file'
    found[name] = status
  for name in sorted(found.keys() | want.keys()):
    if name not in want:
      return f'{name} does not belong to it'
    if name not in found:
      return f'{name} is missing'
    if found[name].st_size != want[name][0]:
      return f'{name} has {found[name].st_size} bytes, not {want[name][0]}'
  for name, (_, sha256) in want.items():
    if _sha256(folder / name) != sha256:
      return f'sha256 mismatch in {name}'
  return ''


def is_partial(folder: pathlib.Path, manifest: pathlib.Path) -> bool:
  """Whether some of the files that the manifest lists are not there."""
  try:
    names = json.loads(manifest.read_text())['files']
    return not all((folder / name).exists() for name in names)
  except (OSError, ValueError, KeyError, TypeError):
    return False


def _sha256(path: pathlib.Path) -> str:
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()
