"""Errors that a user can act on: one line, one exit code, no traceback."""

from __future__ import annotations

from typing import Any

_LONGEST = 500  # Characters of a value that an error repeats; a path may have as many.


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

  def __reduce__(self) -> tuple[Any, ...]:
    # A worker process sends it to the one that reports it.
    return type(self), self._parts


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
