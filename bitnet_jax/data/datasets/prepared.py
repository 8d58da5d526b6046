"""Prepares data sets on disk, checks and opens prepared ones; only `prepare` downloads."""

from __future__ import annotations

import contextlib
import fcntl
import io
import os
import pathlib
import posixpath
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core import shuffle
from tensorflow_datasets.core.download import download_manager

from bitnet_jax import errors
from bitnet_jax.data.datasets import builders, folder_builder, shard_manifest, untrusted
from bitnet_jax.runtime import files

_CONNECT_SECONDS = 10


def make_builder(name: str, data_dir: str) -> Any:
  """Returns the tfds builder of a data set, prepared or not, without network access.

  Args:
    name: a key of `builders.BUILDERS`, or the path of a folder of images.
    data_dir: the tfds directory; '' for tfds's default (TFDS_DATA_DIR, or
      ~/tensorflow_datasets).

  Returns:
    The builder; `data_path` is the directory of its one version.

  Raises:
    DataError: `name` is neither a key nor a directory.
  """
  if name in builders.BUILDERS:
    return builders.BUILDERS[name](data_dir=data_dir or None)
  path = os.path.expanduser(name)
  if not os.path.isdir(path):
    names = ', '.join(builders.BUILDERS)
    remedy = f'choose one of {names}, or name a folder of images'
    raise errors.DataError('dataset', name, 'unknown data set', remedy)
  return folder_builder.make(path)(data_dir=data_dir or None)


def is_prepared(builder: Any) -> bool:
  """Returns whether a builder's data set is complete on disk, without network access."""
  # tfds writes this file last. Without the file, is_prepared() would log a warning.
  return (builder.data_path / 'dataset_info.json').exists() and builder.is_prepared()


def find_builder(name: str, data_dir: str) -> Any:
  """Returns the builder of a prepared data set, without a check of the shards.

  Args:
    name: a key of `builders.BUILDERS`, or 'folder'.
    data_dir: as for `make_builder`; for 'folder', the directory NAME/VERSION that `prepare` wrote.

  Raises:
    DataError: the data set is not prepared, or prepared in a format without random access, or
      (of 'folder') has files that `prepare` does not write.
  """
  if name == 'folder':
    builder = untrusted.open_directory(data_dir)
  else:
    builder = make_builder(name, data_dir)
  root = builder.data_path.parents[1]
  command = f'python -m bitnet_jax.prepare --dataset={name} --data_dir='
  if not is_prepared(builder):
    raise errors.DataError(
      'config.data.dir', root, f'{name!r} is not prepared', f'run {command}{root}'
    )
  if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
    problem = f'{name!r} is stored as {builder.info.file_format.value}, not array_record'
    raise errors.DataError('config.data.dir', root, problem, f'run {command}OTHER_DIR')
  return builder


def open_builder(
  name: str, data_dir: str, *, hash_bytes: float = 0, stop: Callable[[], bool] = lambda: False
) -> Any:
  """Returns the builder of a prepared data set that agrees with its manifest.

  Args:
    name: as for `find_builder`.
    data_dir: as for `find_builder`.
    hash_bytes: as for `shard_manifest.check`.
    stop: as for `shard_manifest.check`.

  Returns:
    The builder, whose `as_data_source` works.

  Raises:
    DataError: `find_builder` raised, or the shards differ from the manifest.
  """
  builder = find_builder(name, data_dir)
  shard_manifest.check(str(builder.data_path), _counts(builder), hash_bytes=hash_bytes, stop=stop)
  return builder


def _counts(builder: Any) -> dict[str, int]:
  return {name: split.num_examples for name, split in builder.info.splits.items()}


def prepare(name: str, data_dir: str, archive_dir: str = '', *, unofficial: bool = False) -> str:
  """Writes a data set as ArrayRecord with a manifest, unless a complete one exists.

  tfds writes into a directory of another name and renames that directory at the end, so an
  interrupted run leaves no partial data set; the next run removes the remains. A second process
  waits for the first.

  Args:
    name: as for `make_builder`.
    data_dir: as for `make_builder`.
    archive_dir: directory of the official archives, under their own names; '' downloads them to
      DATA_DIR/downloads. Checksums are enforced either way.
    unofficial: whether archives of imagenet2012 may have other contents, such as a part.

  Returns:
    The directory of the data set, `DATA_DIR/NAME/VERSION`.

  Raises:
    DataError: an archive is missing or wrong, or cannot be downloaded.
    StorageError: the directory has no space or cannot be written.
  """
  builder = make_builder(name, data_dir)
  path = str(builder.data_path)
  if is_prepared(builder) and os.path.exists(os.path.join(path, shard_manifest.NAME)):
    return path
  with _alone(builder):
    if not is_prepared(builder):
      if builder.data_path.exists():
        problem = 'holds something other than a finished data set'
        raise errors.DataError('data_dir', builder.data_path, problem, 'remove that directory')
      _build(builder, archive_dir, unofficial)
    if not os.path.exists(os.path.join(path, shard_manifest.NAME)):
      shard_manifest.write(path, _counts(builder), show=True)
  return path


@contextlib.contextmanager
def _alone(builder: Any) -> Iterator[None]:
  """Waits for another process that prepares the data set, then removes remains of killed ones."""
  parent, version = pathlib.Path(builder.data_path.parent), builder.data_path.name
  try:
    parent.parent.mkdir(parents=True, exist_ok=True)
    parent.mkdir(exist_ok=True)
    lock = (parent / '.lock').open('w')
  except OSError as error:
    remedy = 'name a directory that you may write to'
    raise errors.StorageError('data_dir', parent.parent, str(error.strerror), remedy) from error
  with lock:  # The kernel releases the lock when the process ends.
    fcntl.flock(lock, fcntl.LOCK_EX)
    for partial in parent.glob(f'incomplete.*_{version}'):  # tfds's name while it writes.
      shutil.rmtree(partial)
    yield


def _build(builder: Any, archive_dir: str, unofficial: bool) -> None:
  root = builder.data_path.parents[1]
  for url in builder.archive_urls:
    _check_obtainable(url, archive_dir, pathlib.Path(root))
  if manual := getattr(builder, 'manual_archives', ()):
    archive_dir = archive_dir or str(root / 'downloads' / 'manual')
    _check_manual(builder, manual, archive_dir, unofficial)
  config = tfds.download.DownloadConfig(
    manual_dir=archive_dir or None,
    try_download_gcs=False,
    force_checksums_validation=True,
  )
  try:
    with contextlib.redirect_stdout(io.StringIO()):  # The caller prints one line.
      builder.download_and_prepare(download_config=config, file_format='array_record')
  except Exception as error:
    user_error = _explain(error, builder.name)
    if user_error is None:
      raise
    raise user_error from error


def _check_manual(builder: Any, names: Sequence[str], archive_dir: str, unofficial: bool) -> None:
  """Checks that archives which the user must download exist and are the official ones."""
  official = {posixpath.basename(url): info for url, info in builder.url_infos.items()}
  paths = [os.path.join(os.path.expanduser(archive_dir), name) for name in names]
  for path in paths:
    if not os.path.isfile(path):
      remedy = 'fetch it from https://image-net.org/download-images and give --archive_dir=DIR'
      raise errors.DataError('archive_dir', archive_dir, f'no file {path}', remedy)
  if unofficial:
    return
  remedy = 'fetch it again, or give --unofficial for a part of the data set'
  for path, name in zip(paths, names, strict=True):
    if (size := os.path.getsize(path)) != official[name].size:
      problem = f'{size} bytes, the official one has {int(official[name].size)}'
      raise errors.DataError('archive', path, problem, remedy)
  for path, name in zip(paths, names, strict=True):
    if (checksum := files.sha256(path, progress=True)) != official[name].checksum:
      problem = f'wrong checksum, expected {official[name].checksum}, got {checksum}'
      raise errors.DataError('archive', path, problem, remedy)


def _check_obtainable(url: str, archive_dir: str, data_dir: pathlib.Path) -> None:
  """Raises DataError at once where tfds would retry for 205 s: no such file, no network."""
  archive = posixpath.basename(url)
  if archive_dir:
    path = os.path.join(os.path.expanduser(archive_dir), archive)
    if not os.path.isfile(path):
      remedy = f'fetch it from {url}, or leave archive_dir out to download it'
      raise errors.DataError('archive_dir', archive_dir, f'no file {path}', remedy)
    return
  stem, _, suffix = archive.partition('.')
  cached = [
    path
    for path in (data_dir / 'downloads').rglob(f'*{stem}*.{suffix}')
    if '.tmp.' not in str(path)
  ]
  if cached:
    return
  import requests  # Takes a tenth of a second to import, for this alone.

  try:
    requests.head(url, timeout=_CONNECT_SECONDS, allow_redirects=True).raise_for_status()
  except requests.RequestException as error:
    remedy = f'fetch {archive} on another machine and give --archive_dir=DIR'
    raise errors.DataError('dataset', url, f'cannot be reached ({error})', remedy) from error


def _explain(error: Exception, name: str) -> errors.UserError | None:
  """Returns an error of tfds as a UserError of one line; None where no line is better."""
  chain: list[BaseException] = [error]
  while cause := chain[-1].__cause__ or chain[-1].__context__:
    chain.append(cause)
  for cause in chain:
    if isinstance(cause, errors.UserError):
      return cause
    if isinstance(cause, shuffle.DuplicatedKeysError):
      return errors.DataError('dataset', name, 'two images bear the same name', 'fetch it again')
  message = str(error)
  if isinstance(error, download_manager.NonMatchingChecksumError):
    match = re.search(r'Artifact (\S+), downloaded to (.*), has wrong checksum', message)
    sums = re.findall(r"checksum='(\w+)'", message)
    if match and len(sums) == 2:
      problem = f'wrong checksum, expected {sums[0]}, got {sums[1]}'
      return errors.DataError('archive', match[2], problem, f'fetch {match[1]} again')
    return errors.DataError('archive', name, message, 'fetch it again')
  if 'Not enough disk space' in message:
    return errors.StorageError('data_dir', name, message, 'free space there')
  if isinstance(error, OSError) and error.errno is not None:
    return None  # A fault of the disk: `cli.run` names the file.
  if isinstance(error, OSError | tfds.download.DownloadError):
    remedy = 'fetch the archive elsewhere and give --archive_dir=DIR'
    return errors.DataError('dataset', name, f'cannot download ({message})', remedy)
  return None
