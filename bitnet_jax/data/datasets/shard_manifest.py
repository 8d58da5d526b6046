"""The manifest of a prepared data set: examples of each split, size and SHA-256 of each file.

`prepare` writes it beside the shards and the few small files that describe them, names of classes
among these. Sizes and names are compared whenever the set is opened, and the hashes of the small
files; training compares those of the shards of small sets too, and of large ones where it is asked
to (`config.data.verify`), as does `prepare --verify`. Manifests of an earlier version list shards
alone; they are taken as they are.
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
_SIZE = 'bytes'  # The key of a file's bytes.
_SHARDS = '*.array_record*'
# What tfds reads of a data set beside its shards.
_DESCRIPTIONS = ('dataset_info.json', 'features.json', '*.labels.txt')


def write(directory: str, splits: dict[str, int], *, show: bool = False) -> None:
  """Hashes all files and writes the manifest, in one move.

  Args:
    directory: of the data set's version.
    splits: examples of each.
    show: a progress bar.
  """
  paths = _bar(_found(directory, _SHARDS, *_DESCRIPTIONS), show)
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
    directory: of the data set's version.
    splits: examples of each, as tfds says.
    hash_bytes: read all shards and compare their SHA-256 too if they have no more bytes than this
      together.
    stop: asked after each shard that is read whether to leave the others out, because nothing will
      be done with the data.

  Raises:
    DataError: there is no manifest, or the first difference.
  """
  content = read(directory)
  for split, count in content['splits'].items():
    if splits.get(split) != count:
      _fail(directory, f'{split} has {splits.get(split)} examples, the manifest says {count}')
  listed = content['files']
  expected = (_SHARDS, *_DESCRIPTIONS) if describes(content) else (_SHARDS,)
  for path in _found(directory, *expected):
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
  """SHA-256 of what the examples are, the same whatever version of this package described them.

  It is that of a manifest of the shards alone. Names of classes are compared by themselves, and
  the other descriptions say nothing of an example.

  Raises:
    DataError: there is no manifest, or it is damaged.
  """
  content = read(directory)
  text = _text({**content, 'files': _shards(content['files'])})
  return hashlib.sha256(text.encode()).hexdigest()


def describes(content: dict[str, Any]) -> bool:
  """Whether a manifest lists the files that describe the shards, names of classes among them."""
  return len(_shards(content['files'])) < len(content['files'])


def read(directory: str) -> dict[str, Any]:
  """The manifest of a data set.

  Raises:
    DataError: there is none, or it is damaged.
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
  """Whether it is what `write` writes, down to the last value."""
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
  if hashes and (found := files.sha256(path)) != entry['sha256']:
    _fail(path, f'has SHA-256 {found}, the manifest says {entry["sha256"]}')


def _text(content: dict[str, Any]) -> str:
  return json.dumps(content, indent=2) + '\n'


def _found(directory: str, *patterns: str) -> list[pathlib.Path]:
  return [path for name in patterns for path in sorted(pathlib.Path(directory).glob(name))]


def _shards(entries: dict[str, Any]) -> dict[str, Any]:
  """Those entries of a manifest that are of shards."""
  return {name: entry for name, entry in entries.items() if fnmatch.fnmatchcase(name, _SHARDS)}


def _bar(items: Iterable[Any], show: bool) -> Iterable[Any]:
  return tqdm(list(items), desc='SHA-256', unit='file', disable=None if show else True)


def _fail(what: object, problem: str) -> None:
  raise errors.DataError('file', what, problem, 'remove the data set and prepare it again')
