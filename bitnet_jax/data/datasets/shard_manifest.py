"""Writes and checks the manifest of a prepared data set: its examples, and SHA-256 of its files.

`prepare` writes the manifest beside the shards and the few small files that describe them, such as
the names of classes. Whenever the data set is opened, names and sizes of all files and the hashes
of the small ones are compared. Training compares the hashes of the shards too, of small data sets
always and of large ones with `config.data.verify`, as does `prepare --verify`. Manifests of an
earlier version list the shards alone, and remain valid.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
import pathlib
from collections.abc import Callable, Iterable
from typing import Any

from tqdm import tqdm

from bitnet_jax import errors
from bitnet_jax.runtime import files

NAME = 'manifest.json'
_SIZE = 'bytes'  # The key of a file's size.
_SHARDS = '*.array_record*'
# Files of a data set that tfds reads beside the shards.
_DESCRIPTIONS = ('dataset_info.json', 'features.json', '*.labels.txt')


def write(directory: str, splits: dict[str, int], *, show: bool = False) -> None:
  """Hashes all files and writes the manifest atomically.

  Args:
    directory: directory of the data set's version.
    splits: number of examples by split.
    show: whether a progress bar is shown.
  """
  paths = _bar(_matching_files(directory, _SHARDS, *_DESCRIPTIONS), show)
  content = {'format': 1, 'splits': splits, 'files': files.describe(directory, paths, _SIZE)}
  files.write_json(pathlib.Path(directory, NAME), content)


def check(
  directory: str,
  splits: dict[str, int],
  *,
  hash_bytes: float = 0,
  stop: Callable[[], bool] = lambda: False,
) -> None:
  """Compares a data set with its manifest.

  Args:
    directory: directory of the data set's version.
    splits: number of examples by split, from tfds.
    hash_bytes: largest total size of the shards, in bytes, for which their SHA-256 is compared.
    stop: asked after each shard whether to skip the others, because the caller ends too.

  Raises:
    DataError: the manifest is missing, or differs from the files.
  """
  content = read(directory)
  for split, count in content['splits'].items():
    if splits.get(split) != count:
      _fail(directory, f'{split} has {splits.get(split)} examples, the manifest says {count}')
  listed = content['files']
  expected = (_SHARDS, *_DESCRIPTIONS) if describes(content) else (_SHARDS,)
  for path in _matching_files(directory, *expected):
    if path.name not in listed:
      _fail(path, 'is not in the manifest')
  shards = _shards(listed)
  for name in sorted(listed.keys() - shards.keys()):
    _check_file(pathlib.Path(directory, name), listed[name], hashes=True)
  hashes = sum(entry['bytes'] for entry in shards.values()) <= hash_bytes
  for name, entry in _bar(shards.items(), hashes):
    _check_file(pathlib.Path(directory, name), entry, hashes=hashes)
    if hashes and stop():
      return


def fingerprint(directory: str) -> str:
  """Returns the SHA-256 of a manifest of the shards alone, the same for all versions of manifests.

  Names of classes are compared separately, and the other descriptions do not change an example.

  Raises:
    DataError: the manifest is missing or damaged.
  """
  content = read(directory)
  text = _text({**content, 'files': _shards(content['files'])})
  return hashlib.sha256(text.encode()).hexdigest()


def describes(content: dict[str, Any]) -> bool:
  """Returns whether a manifest lists the files that describe the shards, not the shards alone."""
  return len(_shards(content['files'])) < len(content['files'])


def read(directory: str) -> dict[str, Any]:
  """Reads the manifest of a data set.

  Raises:
    DataError: the manifest is missing or damaged.
  """
  path = pathlib.Path(directory, NAME)
  try:
    content = json.loads(path.read_bytes())
    if not _is_manifest(content):
      raise ValueError('not a manifest of this version')
    return content
  except FileNotFoundError as error:
    remedy = 'run python -m bitnet_jax.prepare for it once more, which writes it'
    raise errors.DataError('manifest', path, 'no such file', remedy) from error
  except (OSError, ValueError, RecursionError) as error:
    remedy = 'delete it and run python -m bitnet_jax.prepare once more'
    raise errors.DataError('manifest', path, f'cannot be read ({error})', remedy) from error


def _is_manifest(content: Any) -> bool:
  """Returns whether a JSON value has the form that `write` writes, down to the last value."""
  if not isinstance(content, dict) or set(content) != {'format', 'splits', 'files'}:
    return False
  entries = files.parse_entries(content['files'], _SIZE)
  splits = content['splits']
  return (
    content['format'] == 1
    and isinstance(splits, dict)
    and all(type(count) is int for count in splits.values())
    and all(pathlib.PurePath(name).name == name for name in entries)
  )


def _check_file(path: pathlib.Path, entry: dict[str, Any], *, hashes: bool) -> None:
  if not path.is_file():
    _fail(path, 'is missing')
  size = path.stat().st_size
  if size != entry['bytes']:
    _fail(path, f'has {size} bytes, the manifest says {entry["bytes"]}')
  if hashes and (checksum := files.sha256(path)) != entry['sha256']:
    _fail(path, f'has SHA-256 {checksum}, the manifest says {entry["sha256"]}')


def _text(content: dict[str, Any]) -> str:
  return json.dumps(content, indent=2) + '\n'


def _matching_files(directory: str, *patterns: str) -> list[pathlib.Path]:
  return [path for name in patterns for path in sorted(pathlib.Path(directory).glob(name))]


def _shards(entries: dict[str, Any]) -> dict[str, Any]:
  """Returns the entries of a manifest that describe shards."""
  return {name: entry for name, entry in entries.items() if fnmatch.fnmatchcase(name, _SHARDS)}


def _bar(items: Iterable[Any], show: bool) -> Iterable[Any]:
  return tqdm(list(items), desc='SHA-256', unit='file', disable=None if show else True)


def _fail(path: object, problem: str) -> None:
  raise errors.DataError('file', path, problem, 'remove the data set and prepare it again')
