"""Guards a run's work directory: locks it, checks its room, and detects that it was replaced."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import pathlib
import shutil
import socket
import time
from collections.abc import Iterator
from types import TracebackType

from bitnet_jax import errors

_LOCK = '.lock'
# Orbax looks for its files by patterns, of which the path becomes a part.
_PATTERN = '*?[]\\'
_FILES = ('config.json', 'run.json', 'result.json')  # What a run writes over.

_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)


class DirectoryHandle:
  """Detects that a run's directory was replaced, by holding it open until `close`.

  A file system may give the number of a removed directory to a new one, but not while the old one
  is open.

  Attributes:
    path: where it was.
    descriptor: of the open directory; -1 once it is closed.
  """

  def __init__(self, path: str | os.PathLike[str]):
    """Opens the directory; raises OSError."""
    self.path = pathlib.Path(path).absolute()
    self.descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)

  def check(self) -> None:
    """Raises StorageError where the path does not lead to the directory any more."""
    problem, remedy = 'it was removed while the run went on', 'run the command again'
    try:
      if os.path.samestat(os.fstat(self.descriptor), self.path.stat()):
        return
    except OSError as error:
      if error.errno not in _GONE:
        problem, remedy = f'cannot be reached ({error.strerror})', errors.remedy_of(error.errno)
    raise errors.StorageError('workdir', self.path, problem, remedy)

  def close(self) -> None:
    """Closes the directory."""
    if self.descriptor >= 0:
      os.close(self.descriptor)
      self.descriptor = -1


class Claim:
  """Holds the sole use of a work directory until `release`, or for as long as the process lives.

  The locks are the kernel's (`flock`), so that they end with their owner however that dies. Locked
  are the directory, which nobody can make anew while it is in use, and a file in it, which says who
  holds it and which file systems that lock no directories (NFS) lock.
  """

  def __init__(self, workdir: str):
    """Makes the directory with its parents, tries it and locks it.

    Raises:
      StorageError: it is no directory, cannot be written or locked, another process uses it, or
        checkpoints under such a name could not be restored.
    """
    self.path = pathlib.Path(workdir)
    self._file = -1
    _check_name(workdir)
    with _opening(workdir):
      self.path.mkdir(parents=True, exist_ok=True)
      self._held = DirectoryHandle(workdir)
    try:
      self._directory_locked = self._lock_directory()
      with _opening(workdir):
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._file = os.open(self.path / _LOCK, flags, 0o644)
      self._lock_file()
      self._write_owner(workdir)
      _check_files(self.path)
    except errors.StorageError:
      self.release()
      raise

  def check(self) -> None:
    """Raises StorageError where it is not the directory that was claimed, or not ours alone."""
    self._held.check()
    if self._directory_locked:
      return
    with contextlib.suppress(OSError):
      if os.path.samestat(os.fstat(self._file), (self._held.path / _LOCK).stat()):
        return
    problem = f'its {_LOCK} was removed while the run went on, so that another may use it too'
    raise errors.StorageError('workdir', self.path, problem, 'leave that file, run it again')

  def _lock_directory(self) -> bool:
    """Returns whether the directory could be locked."""
    try:
      fcntl.flock(self._held.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise self._in_use() from error
    except OSError:  # The file is locked then, and `check` looks whether it is still there.
      return False
    return True

  def _lock_file(self) -> None:
    try:
      fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise self._in_use() from error
    except OSError as error:
      # Not without one: a scheduler that starts a job twice would have two write the same files.
      raise errors.StorageError(
        'workdir',
        self.path,
        f'its file system gives no lock ({error.strerror})',
        'mount it with locks (option flock), or take a --workdir on another file system',
      ) from error

  def _in_use(self) -> errors.StorageError:
    problem, remedy = f'in use by {self._owner()}', 'wait for it, or take another --workdir'
    return errors.StorageError('workdir', self.path, problem, remedy)

  def _write_owner(self, workdir: str) -> None:
    owner = {
      'pid': os.getpid(),
      'host': socket.gethostname(),
      'since': time.strftime('%Y-%m-%d %H:%M:%S'),
    }
    try:
      os.ftruncate(self._file, 0)
      os.pwrite(self._file, json.dumps(owner).encode(), 0)
      os.fsync(self._file)
    except OSError as error:
      raise errors.StorageError(
        'workdir', workdir, error.strerror or str(error), 'free space there'
      ) from error

  def _owner(self) -> str:
    try:
      file = os.open(self.path / _LOCK, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
      with open(file, 'rb') as opened:
        owner = json.loads(opened.read(4096))
      return f'pid {owner["pid"]} on host {owner["host"]} since {owner["since"]}'
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
      return 'another process'

  def release(self) -> None:
    """Releases the locks."""
    self._held.close()
    if self._file >= 0:
      os.close(self._file)
      self._file = -1

  def __enter__(self) -> Claim:
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    self.release()


@contextlib.contextmanager
def _opening(workdir: str) -> Iterator[None]:
  try:
    yield
  except OSError as error:
    problem, remedy = error.strerror or str(error), 'name a directory that can be written'
    raise errors.StorageError('workdir', workdir, problem, remedy) from error


def _check_name(workdir: str) -> None:
  """Raises StorageError for a path that Orbax would take for a pattern: it saves, finds nothing."""
  path = str(pathlib.Path(workdir).absolute())
  if characters := sorted(set(path) & set(_PATTERN)):
    problem = f'checkpoints in {path} could not be restored because of {" ".join(characters)} in it'
    remedy = f'take a --workdir without any of {" ".join(_PATTERN)}'
    raise errors.StorageError('workdir', workdir, problem, remedy)


def _check_files(folder: pathlib.Path) -> None:
  """Raises StorageError for what could not be written over, which else were found at the end."""
  for name in _FILES:
    if (folder / name).is_dir():
      remedy = 'move it elsewhere, or take another --workdir'
      raise errors.StorageError('workdir', folder / name, 'is a directory', remedy)


def check_space(workdir: str, *, state_bytes: int, checkpoints: int) -> None:
  """Checks that there is room for all checkpoints that are kept, and one being written.

  Args:
    workdir: of the run.
    state_bytes: size of the training state.
    checkpoints: how many are kept at once.

  Raises:
    StorageError: the file system has less.
  """
  folder = pathlib.Path(workdir, 'checkpoints')  # Not those of other runs, in directories below.
  existing = sum(path.lstat().st_size for path in folder.rglob('*'))
  needed = (checkpoints + 1) * state_bytes - existing
  free = shutil.disk_usage(workdir).free
  if free < needed:
    damaged = pathlib.Path(workdir, 'damaged')
    remedy = 'free space' + (f' (delete {damaged})' if damaged.is_dir() else '')
    raise errors.StorageError(
      'workdir',
      workdir,
      f'{checkpoints} checkpoints need {needed / 1e6:,.0f} MB, there are {free / 1e6:,.0f} MB',
      f'{remedy}, or lower config.checkpoint.keep_latest',
    )
