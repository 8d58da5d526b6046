"""Writes and verifies manifests: the names, sizes and SHA-256 of the files of a checkpoint.

Orbax restores a checkpoint with a flipped bit without an error (in nine of ten cases the weights
are silently wrong), so a checkpoint is verified before Orbax opens any of its files.
"""

from __future__ import annotations

import errno
import json
import pathlib
import stat

from bitnet_jax import errors
from bitnet_jax.runtime import files

_SIZE = 'size'  # JSON key of a file's size in bytes.

# What parsing a damaged manifest may raise; deeply nested brackets raise RecursionError.
_DAMAGED = (ValueError, KeyError, TypeError, AttributeError, RecursionError)

# Numbers of the errors for a file in place of a directory, the reverse, and a link to itself.
_WRONG_KIND = (errno.ENOTDIR, errno.EISDIR, errno.ELOOP)


def write(folder: pathlib.Path, manifest: pathlib.Path) -> None:
  """Writes the manifest of all files of `folder`, atomically.

  Args:
    folder: the folder to describe; nothing may change in it any more.
    manifest: the JSON file to write, outside of `folder`.
  """
  paths = [path for path in sorted(folder.rglob('*')) if path.is_file()]
  manifest.parent.mkdir(parents=True, exist_ok=True)
  files.write_json(manifest, {'files': files.describe(folder, paths, _SIZE)}, indent=1)


def find_fault(folder: pathlib.Path, manifest: pathlib.Path, *, hashes: bool = True) -> str:
  """Returns how `folder` differs from its manifest; '' if the two agree.

  Names, kinds and sizes are compared first, so that no link and no unknown file is ever opened.

  Args:
    folder: the folder that the manifest describes.
    manifest: the JSON file.
    hashes: whether to compare the SHA-256 of the files too.

  Raises:
    StorageError: a file cannot be read, so nothing is known about its content.
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
    problem = f'cannot be read ({error.strerror or error})'
    remedy = 'make it readable and run again; if the disk is broken, move it elsewhere'
    raise errors.StorageError('checkpoint', error.filename or folder, problem, remedy) from error


def _read(manifest: pathlib.Path) -> dict[str, tuple[int, str]]:
  """Returns (size in bytes, SHA-256) by file name; raises one of `_DAMAGED` for other content."""
  if not stat.S_ISREG(manifest.lstat().st_mode):
    raise ValueError('no plain file')
  return files.parse_entries(json.loads(manifest.read_bytes())['files'], _SIZE)


def _difference(folder: pathlib.Path, listed: dict[str, tuple[int, str]], hashes: bool) -> str:
  if folder.is_symlink():
    return 'it is a link'
  sizes: dict[str, int] = {}
  for path in sorted(folder.rglob('*')):
    status = path.lstat()
    if stat.S_ISDIR(status.st_mode):
      continue
    name = str(path.relative_to(folder))
    if not stat.S_ISREG(status.st_mode):
      return f'{name} is a link or no plain file'
    sizes[name] = status.st_size
  for name in sorted(sizes.keys() | listed.keys()):
    if name not in listed:
      return f'{name} does not belong to it'
    if name not in sizes:
      return f'{name} is missing'
    if sizes[name] != listed[name][0]:
      return f'{name} has {sizes[name]} bytes, not {listed[name][0]}'
  for name, (_, sha256) in listed.items():
    if hashes and files.sha256(folder / name) != sha256:
      return f'sha256 mismatch in {name}'
  return ''
