"""Writes and verifies SHA-256 manifests: what files a folder must hold, to the last bit.

Orbax restores a checkpoint with a flipped bit without a word (in nine of ten cases the weights are
silently wrong), so each one is verified against its manifest before anything in it is opened.
"""

from __future__ import annotations

import errno
import json
import os
import pathlib
import stat

from bitnet_jax import errors
from bitnet_jax.runtime import files

_SIZE = 'size'  # The key of a file's bytes.

# What a file that is no manifest may raise; the last, brackets in brackets in brackets.
_DAMAGED = (ValueError, KeyError, TypeError, AttributeError, RecursionError)

# A file where a directory has to be, or the other way round; a link to itself.
_WRONG_KIND = (errno.ENOTDIR, errno.EISDIR, errno.ELOOP)


def write(folder: pathlib.Path, manifest: pathlib.Path) -> None:
  """Writes the manifest of all files of `folder`; a reader sees it whole or not at all.

  Args:
    folder: what to describe; it must not change any more.
    manifest: the JSON file to write, outside of `folder`.
  """
  paths = [path for path in sorted(folder.rglob('*')) if path.is_file()]
  manifest.parent.mkdir(parents=True, exist_ok=True)
  files.write_json(manifest, {'files': files.describe(folder, paths, _SIZE)}, indent=1)


def find_fault(folder: pathlib.Path, manifest: pathlib.Path, *, hashes: bool = True) -> str:
  """Returns what is wrong with `folder`, '' if it is what the manifest says.

  Names, kinds and sizes are compared first, so that neither a link nor a file that does not belong
  there is ever opened.

  Args:
    folder: what the manifest describes.
    manifest: the JSON file.
    hashes: compare the SHA-256 of the files too.

  Raises:
    StorageError: the storage does not let read them, which says nothing about what they hold.
  """
  try:
    return _difference(folder, _read(manifest), hashes)
  except FileNotFoundError as error:
    if error.filename == str(manifest):
      return 'it has no manifest, so it was not written whole'
    return f'{error.filename} is missing'
  except _DAMAGED:
    return f'its manifest {manifest.name} is damaged'
  except OSError as error:
    if error.errno in _WRONG_KIND:
      return f'it is not laid out as a checkpoint ({error.strerror})'
    found = f'cannot be read ({error.strerror or error})'
    remedy = 'make it readable and run again; if the disk is broken, move it elsewhere'
    raise errors.StorageError('checkpoint', error.filename or folder, found, remedy) from error


def _read(manifest: pathlib.Path) -> dict[str, tuple[int, str]]:
  """Returns size and SHA-256 by name; raises one of `_DAMAGED` where `write` did not write it."""
  if not stat.S_ISREG(manifest.lstat().st_mode):
    raise ValueError('no plain file')
  return files.parse_entries(json.loads(manifest.read_bytes())['files'], _SIZE)


def _difference(folder: pathlib.Path, want: dict[str, tuple[int, str]], hashes: bool) -> str:
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
    if hashes and files.sha256(folder / name) != sha256:
      return f'sha256 mismatch in {name}'
  return ''
