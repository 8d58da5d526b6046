"""Reads tar archives of any origin for the builders, and extracts nothing to the disk."""

from __future__ import annotations

import contextlib
import lzma
import pathlib
import tarfile
import zlib
from collections.abc import Collection, Iterator
from typing import IO

from bitnet_jax import errors

MAX_MEMBER_BYTES = 1 << 28  # The largest member of a CIFAR archive has 154 MB.
MAX_INNER_BYTES = 1 << 31  # The archive of an ILSVRC12 class has about 150 MB.


def walk(archive: str) -> Iterator[tuple[str, bytes]]:
  """Yields (name, contents) of the regular files of a tar archive, in the archive's order.

  Args:
    archive: path of the archive, compressed or not.

  Raises:
    DataError: the archive is damaged, or has members that no data set needs: absolute or `..`
      paths, links, devices, files above `MAX_MEMBER_BYTES`.
  """
  for name, file in _members(archive, None, MAX_MEMBER_BYTES):
    yield name, _read(archive, file)


def walk_nested(archive: str) -> Iterator[tuple[str, str, bytes]]:
  """Yields (inner archive, name, contents) of the files of all archives in an archive.

  Args:
    archive: path of the outer archive.

  Raises:
    DataError: `walk` raised for one of the archives.
  """
  for outer, inner in _members(archive, None, MAX_INNER_BYTES):
    for name, file in _members(archive, inner, MAX_MEMBER_BYTES):
      yield outer, name, _read(archive, file)


def _members(
  archive: str, opened: IO[bytes] | None, max_bytes: int
) -> Iterator[tuple[str, IO[bytes]]]:
  with contextlib.ExitStack() as stack:
    with _explained(archive):
      tar = stack.enter_context(tarfile.open(None if opened else archive, 'r:*', fileobj=opened))
    while True:
      with _explained(archive):
        member = tar.next()
        if member is None:
          return
        _check_member(archive, member, max_bytes)
        file = tar.extractfile(member)
      if file is not None:
        yield member.name, file


def _read(archive: str, file: IO[bytes]) -> bytes:
  with _explained(archive):
    return file.read()


@contextlib.contextmanager
def _explained(archive: str) -> Iterator[None]:
  try:
    yield
  except (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError) as error:
    raise errors.DataError('archive', archive, f'unreadable ({error})', 'fetch it again') from error


def read_members(archive: str, names: Collection[str]) -> dict[str, bytes]:
  """Returns the contents of files in a tar archive.

  Args:
    archive: path of the archive, compressed or not.
    names: full names of the members to read.

  Returns:
    The contents by name.

  Raises:
    DataError: `walk` raised, or the archive lacks one of `names`.
  """
  contents = {name: content for name, content in walk(archive) if name in names}
  for name in names:
    if name not in contents:
      raise errors.DataError('archive', archive, f'has no {name}', 'fetch the binary version')
  return contents


def _check_member(archive: str, member: tarfile.TarInfo, max_bytes: int) -> None:
  path = pathlib.PurePosixPath(member.name)
  problem = ''
  if path.is_absolute() or '..' in path.parts:
    problem = 'leaves the archive'
  elif not (member.isfile() or member.isdir()):
    problem = 'is a link or a device'
  elif member.size > max_bytes:
    problem = f'has {member.size} bytes'
  if problem:
    remedy = 'fetch the archive from its official address'
    raise errors.DataError('archive', archive, f'member {member.name!r} {problem}', remedy)
