"""Reading tar archives that may come from anywhere: nothing is extracted to the disk."""

from __future__ import annotations

import contextlib
import lzma
import pathlib
import tarfile
import zlib
from collections.abc import Collection, Iterator
from typing import IO

from bitnet_jax import errors

MAX_MEMBER_BYTES = 1 << 28  # The largest member of either CIFAR archive has 154 MB.
MAX_INNER_BYTES = 1 << 31  # ILSVRC12's archive of a class has about 150 MB.


def walk(archive: str) -> Iterator[tuple[str, bytes]]:
  """Yields the regular files of a tar archive as they stand in it, as (name, contents).

  Args:
    archive: path of the archive, compressed or not.

  Raises:
    DataError: the archive is damaged, or holds anything that no data set
      needs: absolute or `..` paths, links, devices, files of great size.
  """
  for name, file in _members(archive, None, MAX_MEMBER_BYTES):
    yield name, _read(archive, file)


def walk_nested(archive: str) -> Iterator[tuple[str, str, bytes]]:
  """Yields the files of the archives in an archive, as (archive's name, name, contents).

  Args:
    archive: path of the outer archive.

  Raises:
    DataError: as `walk`.
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
  """Reads files out of a tar archive.

  Args:
    archive: path of the archive, compressed or not.
    names: the members to read, by their full names.

  Returns:
    The contents by name.

  Raises:
    DataError: as `walk`, or the archive lacks one of `names`.
  """
  found = {name: content for name, content in walk(archive) if name in names}
  for name in names:
    if name not in found:
      raise errors.DataError('archive', archive, f'has no {name}', 'fetch the binary version')
  return found


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
