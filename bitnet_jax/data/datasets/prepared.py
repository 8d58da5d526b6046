"""Data sets on disk: is one prepared, prepare it, open it. No implicit download."""

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
  """The tfds builder of a data set, prepared or not; touches no network.

  Args:
    name: a key of `builders.BUILDERS`, or the path of a folder of images.
    data_dir: the tfds directory; '' is tfds's own default (TFDS_DATA_DIR, or
      ~/tensorflow_datasets).

  Returns:
    The builder; `data_path` is the directory of its one version.

  Raises:
    DataError: `name` is unknown.
  """
  if name in builders.BUILDERS:
    return builders.BUILDERS[name](data_dir=data_dir or None)
  path = os.path.expanduser(name)
  if not os.path.isdir(path):
    known = ', '.join(builders.BUILDERS)
    remedy = f'choose one of {known}, or name a folder of images'
    raise errors.DataError('dataset', name, 'unknown data set', remedy)
  return folder_builder.make(path)(data_dir=data_dir or None)


def is_prepared(builder: Any) -> bool:
  """Whether a builder's data set stands complete on disk; asks no network."""
  # tfds writes this file last and renames the directory after that. Looking
  # first spares the warning that is_prepared() logs where nothing is there.
  return (builder.data_path / 'dataset_info.json').exists() and builder.is_prepared()


def find_builder(name: str, data_dir: str) -> Any:
  """The builder of a data set that is prepared; none of its shards is looked at.

  Args:
    name: a key of `builders.BUILDERS`, or 'folder'.
    data_dir: as for `make_builder`; of 'folder', where `prepare` wrote it (NAME/VERSION).

  Raises:
    DataError: not prepared, or prepared in a format without random access; of 'folder', its files
      are not those that `prepare` writes.
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
  """The builder of a data set that is prepared and agrees with its manifest.

  Args:
    name: as for `find_builder`.
    data_dir: as for `find_builder`.
    hash_bytes: see `shards.check`.
    stop: see `shards.check`.

  Returns:
    The builder, whose `as_data_source` works.

  Raises:
    DataError: as `find_builder`, or its shards differ from the manifest.
  """
  builder = find_builder(name, data_dir)
  shard_manifest.check(str(builder.data_path), _counts(builder), hash_bytes=hash_bytes, stop=stop)
  return builder


def _counts(builder: Any) -> dict[str, int]:
  return {name: split.num_examples for name, split in builder.info.splits.items()}


def prepare(name: str, data_dir: str, archive_dir: str = '', *, unofficial: bool = False) -> str:
  """Writes a data set as ArrayRecord with a manifest, unless it is there already.

  tfds writes into a directory of another name and renames it at the end: an
  interrupted run leaves no half data set, and may be run again, which removes
  what was left. A second process waits for the first.

  Args:
    name: as for `make_builder`.
    data_dir: as for `make_builder`.
    archive_dir: where the official archives are, under their own names; '' is
      to download them (to DATA_DIR/downloads). Checksums are enforced either way.
    unofficial: take archives of imagenet2012 with other contents, such as a part of it.

  Returns:
    The directory of the data set, `DATA_DIR/NAME/VERSION`.

  Raises:
    DataError: no archive, a wrong one, or no network to download it.
    StorageError: no space, or no directory to write to.
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
  """Waits for any other process that prepares the data set, then removes what killed ones left."""
  parent, version = pathlib.Path(builder.data_path.parent), builder.data_path.name
  try:
    parent.parent.mkdir(parents=True, exist_ok=True)
    parent.mkdir(exist_ok=True)
    lock = (parent / '.lock').open('w')
  except OSError as error:
    remedy = 'name a directory that you may write to'
    raise errors.StorageError('data_dir', parent.parent, str(error.strerror), remedy) from error
  with lock:  # The kernel's: it ends with its process, however that ends.
    fcntl.flock(lock, fcntl.LOCK_EX)
    for left in parent.glob(f'incomplete.*_{version}'):  # tfds's name for what it is writing.
      shutil.rmtree(left)
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
    with contextlib.redirect_stdout(io.StringIO()):  # tfds prints what the caller says better.
      builder.download_and_prepare(download_config=config, file_format='array_record')
  except Exception as error:
    user_error = _explain(error, builder.name)
    if user_error is None:
      raise
    raise user_error from error


def _check_manual(builder: Any, names: Sequence[str], archive_dir: str, unofficial: bool) -> None:
  """Archives that nobody may download for the user: are they there, and the official ones."""
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
    if (found := files.sha256(path, progress=True)) != official[name].checksum:
      problem = f'wrong checksum, expected {official[name].checksum}, got {found}'
      raise errors.DataError('archive', path, problem, remedy)


def _check_obtainable(url: str, archive_dir: str, data_dir: pathlib.Path) -> None:
  """Fails at once where tfds would try for 205 s: no such file, no network."""
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
  import requests  # A tenth of a second to import, and for this alone.

  try:
    requests.head(url, timeout=_CONNECT_SECONDS, allow_redirects=True).raise_for_status()
  except requests.RequestException as error:
    remedy = f'fetch {archive} on another machine and give --archive_dir=DIR'
    raise errors.DataError('dataset', url, f'cannot be reached ({error})', remedy) from error


def _explain(error: Exception, name: str) -> errors.UserError | None:
  """The one-line form of what tfds raises, None if it has none."""
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
    found = re.search(r'Artifact (\S+), downloaded to (.*), has wrong checksum', message)
    sums = re.findall(r"checksum='(\w+)'", message)
    if found and len(sums) == 2:
      problem = f'wrong checksum, expected {sums[0]}, got {sums[1]}'
      return errors.DataError('archive', found[2], problem, f'fetch {found[1]} again')
    return errors.DataError('archive', name, message, 'fetch it again')
  if 'Not enough disk space' in message:
    return errors.StorageError('data_dir', name, message, 'free space there')
  if isinstance(error, OSError) and error.errno is not None:
    return None  # A fault of the disk: the command's boundary names the file.
  if isinstance(error, OSError | tfds.download.DownloadError):
    remedy = 'fetch the archive elsewhere and give --archive_dir=DIR'
    return errors.DataError('dataset', name, f'cannot download ({message})', remedy)
  return None
