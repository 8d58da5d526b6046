"""Defines the errors that a user can act on: one line, one exit code, no traceback."""

from __future__ import annotations

import errno
import os
from typing import Any, Self

_LONGEST = 500  # Characters of a value that an error repeats; a path may have as many.
# What to do about a fault of the operating system, by its number.
_REMEDIES = {
  (errno.ENOSPC, errno.EDQUOT): 'free space there',
  (errno.EACCES, errno.EPERM, errno.EROFS): 'choose a place that you may use',
  (errno.ENOENT,): 'restore it, or name another',
  (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ELOOP): 'move it elsewhere, or name another',
  (errno.ENOTEMPTY, errno.ESTALE): 'see that nothing else changes what lies there, run it again',
  (errno.ENAMETOOLONG,): 'name a shorter path',
  (errno.EFBIG,): 'raise the limit of a file (ulimit -f), or choose another file system',
  (errno.EMFILE, errno.ENFILE): 'raise the limit of open files (ulimit -n)',
}


class UserError(Exception):
  """A fault outside the code, reported as `FIELD=VALUE: problem; remedy`.

  Attributes:
    exit_code: what the process returns when this error ends it.
  """

  exit_code = 1

  def __init__(self, field: str, value: object, problem: str, remedy: str):
    """Builds the line.

    Args:
      field: what is at fault, as the user would write it (`config.seed`).
      value: the value it has.
      problem: what is wrong with that value.
      remedy: what to do about it, as an order.
    """
    text = _short(value)
    super().__init__(f'{field}={text}: {problem}; {remedy}'.replace('\n', ' '))
    self._parts = (field, text, problem, remedy)

  def named(self, field: str, value: object) -> Self:
    """The same fault under the name that the user gave what is at fault."""
    _, _, problem, remedy = self._parts
    return type(self)(field, value, problem, remedy)

  def inside(self, field: str, value: object) -> Self:
    """The same fault of something that a field leads to, which is named inside the line."""
    inner, inner_value, problem, remedy = self._parts
    return type(self)(field, value, f'{inner} {inner_value}: {problem}', remedy)

  @property
  def field(self) -> str:
    """What is at fault."""
    return self._parts[0]

  def __reduce__(self) -> tuple[Any, ...]:
    # A worker process sends it to the one that reports it.
    return type(self), self._parts


def remedy_of(number: int | None) -> str:
  """What to do about a fault of the operating system, given its number."""
  remedies = (text for numbers, text in _REMEDIES.items() if number in numbers)
  return next(remedies, 'make it readable and writable, and run it again')


def number_of(fault: BaseException) -> int | None:
  """The number of the fault of the operating system that another fault came of, or tells of."""
  cause: BaseException | None = fault
  while cause:
    if isinstance(cause, OSError) and cause.errno is not None:
      return cause.errno
    cause = cause.__cause__ or cause.__context__
  known = (number for numbers in _REMEDIES for number in numbers)
  return next((number for number in known if os.strerror(number) in str(fault)), None)


def _short(value: object) -> str:
  try:
    text = str(value)
  except ValueError:  # A whole number of thousands of digits has no text.
    text = 'too long to print'
  return text if len(text) <= _LONGEST else f'{text[: _LONGEST - 3]}...'


class ConfigError(UserError):
  """The configuration or the command line is wrong."""

  exit_code = 2


class DataError(UserError):
  """A data set is missing, half prepared or damaged."""

  exit_code = 3


class CheckpointError(UserError):
  """No checkpoint can be restored, or it belongs to another run."""

  exit_code = 4


class DivergedError(UserError):
  """Training diverged; the last good checkpoint is kept."""

  exit_code = 5


class StorageError(UserError):
  """The work directory is missing, in use, full or not writable."""

  exit_code = 6


class PeerError(UserError):
  """Another process of the run was lost or is stuck."""

  exit_code = 7


class PreemptedError(UserError):
  """The run was asked to stop and has saved; run it again to go on."""

  exit_code = 75
