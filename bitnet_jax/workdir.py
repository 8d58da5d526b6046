"""The work directory before anything is written to it: there, writable, ours alone, with room."""

from __future__ import annotations

import fcntl
import json
import os
import pathlib
import shutil
import socket
import time
from types import TracebackType

from bitnet_jax import errors


class Claim:
  """Sole use of a work directory, for as long as the process lives or until `release`.

  The lock is the kernel's (`flock`), so that it ends with its owner however that dies; the file
  says who holds it.
  """

  def __init__(self, workdir: str):
    """Makes the directory with its parents, tries it and locks it.

    Raises:
      StorageError: it is no directory, cannot be written or locked, or another process uses it.
    """
    self.path = pathlib.Path(workdir)
    try:
      self.path.mkdir(parents=True, exist_ok=True)
      self._file = os.open(self.path / '.lock', os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
      raise errors.StorageError(
        'workdir', workdir, error.strerror or str(error), 'name a directory that can be written'
      ) from error
    try:
      fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
      raise errors.StorageError(
        'workdir', workdir, f'in use by {self._owner()}', 'wait for it, or take another --workdir'
      ) from error
    except OSError as error:
      # Not without one: a scheduler that starts a job twice would have two write the same files.
      raise errors.StorageError(
        'workdir',
        workdir,
        f'its file system gives no lock ({error.strerror})',
        'mount it with locks (option flock), or take a --workdir on another file system',
      ) from error
    self._write_owner(workdir)

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
      owner = json.loads(os.pread(self._file, 4096, 0))
      return f'pid {owner["pid"]} on host {owner["host"]} since {owner["since"]}'
    except (OSError, ValueError, KeyError, TypeError):
      return 'another process'

  def release(self) -> None:
    """Lets go of the directory."""
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


def check_space(workdir: str, *, state_bytes: int, checkpoints: int) -> None:
  """Checks that there is room for all checkpoints that are kept, and one being written.

  Args:
    workdir: of the run.
    state_bytes: size of the training state.
    checkpoints: how many are kept at once.

  Raises:
    StorageError: the file system has less.
  """
  existing = sum(path.lstat().st_size for path in pathlib.Path(workdir).rglob('checkpoints/*/**/*'))
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
