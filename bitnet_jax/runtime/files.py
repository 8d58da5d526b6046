"""Writes files so that a reader sees the old or the new one, and hashes them."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from tqdm import tqdm

Path = str | os.PathLike[str]
_BLOCK = 1 << 20


def write_atomically(path: Path, content: bytes) -> None:
  """Replaces a file in one step; after a crash the old content or the new one is there.

  The bytes go to `.NAME.tmp` in the same directory, which is made anew, so that a link at that
  name is never followed.

  Raises:
    OSError: as `open` and `os.replace` raise it.
  """
  path = pathlib.Path(path)
  temporary = path.with_name(f'.{path.name}.tmp')
  temporary.unlink(missing_ok=True)
  with temporary.open('xb') as file:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())
  os.replace(temporary, path)


def write_json(path: Path, value: Any, *, indent: int = 2) -> None:
  """Writes JSON atomically, see `write_atomically`; sequences of any type become lists."""
  write_atomically(path, (json.dumps(value, indent=indent, default=list) + '\n').encode())


def write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
  """Writes a table, a line for its header and one for each row; a file atomically.

  A device or a pipe, as /dev/stdout, is written to and never replaced.
  """
  text = io.StringIO(newline='')
  writer = csv.writer(text)
  writer.writerow(header)
  writer.writerows(rows)
  content = text.getvalue().encode()
  if os.path.exists(path) and not os.path.isfile(path):
    with open(path, 'wb') as device:
      device.write(content)
  else:
    write_atomically(path, content)


def sha256(path: Path, *, progress: bool = False) -> str:
  """Returns a file's SHA-256, hexadecimal; `progress` shows a bar on a terminal."""
  digest, size = hashlib.sha256(), os.path.getsize(path)
  name = os.path.basename(path)
  bar = tqdm(total=size, desc=name, unit='B', unit_scale=True, disable=None if progress else True)
  with bar, open(path, 'rb') as file:
    while block := file.read(_BLOCK):
      digest.update(block)
      bar.update(len(block))
  return digest.hexdigest()


def describe(folder: Path, paths: Iterable[pathlib.Path], size_key: str) -> dict[str, Any]:
  """Returns a manifest's entries: size (under `size_key`) and 'sha256' by name within `folder`."""
  return {
    str(path.relative_to(folder)): {size_key: path.stat().st_size, 'sha256': sha256(path)}
    for path in paths
  }


def parse_entries(entries: Any, size_key: str) -> dict[str, tuple[int, str]]:
  """Returns size and SHA-256 by name from a manifest's entries, as `describe` made them.

  Raises:
    ValueError: an entry has not that form.
  """
  if not isinstance(entries, dict):
    raise ValueError('no object of files')
  parsed = {}
  for name, entry in entries.items():
    if not isinstance(entry, dict):
      raise ValueError(f'{name} is not described')
    size, digest = entry.get(size_key), entry.get('sha256')
    if type(size) is not int or not isinstance(digest, str):
      raise ValueError(f'{name} has no size or no SHA-256')
    parsed[name] = size, digest
  return parsed
