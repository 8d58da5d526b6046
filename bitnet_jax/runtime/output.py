"""Prints where printing may fail: without a reader, a stream or room on the disk; and warns."""

from __future__ import annotations

import io
import logging
import os
import sys
from typing import Any

from bitnet_jax import errors

_STREAMS = ('stdin', 'stdout', 'stderr')


def open_missing_streams() -> None:
  """Opens each standard stream that the process was started without, on the null device.

  Else the next file that is opened, perhaps a checkpoint, would bear its number, and hold what
  libraries print there.
  """
  for number, name in enumerate(_STREAMS):
    try:
      os.fstat(number)
    except OSError:  # The lowest number that is free is this one.
      os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    if getattr(sys, name) is None:
      setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), 'w' if number else 'r'))


def flush() -> None:
  """Writes what was printed and held back.

  Raises:
    BrokenPipeError: nobody reads it any more.
    StorageError: its disk is full, say.
  """
  try:
    sys.stdout.flush()
  except BrokenPipeError:
    raise
  except OSError as error:
    remedy = 'free space there, or write elsewhere'
    raise errors.StorageError('file', 'stdout', str(error.strerror), remedy) from error


def finish(line: str = '') -> None:
  """Writes what was held back, and a last line to stderr; what cannot be written is dropped."""
  for stream, text in ((sys.stdout, ''), (sys.stderr, line and f'{line}\n')):
    try:
      stream.write(text)
      stream.flush()
    except OSError:
      _drop(stream.fileno())  # Python would try again at exit, and fail with a code of its own.


def write(number: int, text: str) -> None:
  """Writes to a descriptor, past Python's buffers, if it takes it; from any thread or handler."""
  try:
    os.write(number, text.encode())
  except OSError:
    return  # Nobody is left to tell.


class _Stderr(logging.StreamHandler):
  """Writes to what `sys.stderr` is at the time, which commands and tests replace."""

  def __init__(self) -> None:
    super().__init__(sys.stderr)
    self.setFormatter(logging.Formatter('bitnet_jax: warning: %(message)s'))

  def emit(self, record: logging.LogRecord) -> None:
    self.stream = sys.stderr
    super().emit(record)


def _make_logger() -> logging.Logger:
  logger = logging.getLogger('bitnet_jax')
  logger.setLevel(logging.WARNING)  # Not the root's level, which absl raises.
  logger.addHandler(_Stderr())
  logger.propagate = False
  return logger


_LOGGER = _make_logger()


def warn(text: str) -> None:
  """Logs a warning to stderr, in one line whatever the names in it."""
  _LOGGER.warning('%s', ' '.join(text.split()))


def ignore_broken_pipes() -> None:
  """Makes stdout and stderr go silent, with one warning, where they would raise an OSError.

  For a command whose work is worth more than what it prints: `| tee` gets the terminal's SIGINT
  too, and is gone before the run has saved.
  """
  for number in (1, 2):
    stream = getattr(sys, _STREAMS[number])
    if isinstance(stream, io.TextIOWrapper) and stream.fileno() == number:
      stream.flush()
      outlives = io.TextIOWrapper(
        io.BufferedWriter(_Outlives(number, 'w', closefd=False)),
        encoding=stream.encoding,
        errors=stream.errors,
        line_buffering=stream.line_buffering or stream.write_through,
      )
      setattr(sys, _STREAMS[number], outlives)


class _Outlives(io.FileIO):
  """Writes a stream's bytes until that fails, so that the buffers above never fail."""

  def write(self, content: Any, /) -> int:
    try:
      return super().write(content)
    except OSError as error:
      number = self.fileno()
      _drop(number)
      problem = f'{_STREAMS[number]} cannot be written: {error.strerror}'
      write(3 - number, f'bitnet_jax: warning: {problem}; the run goes on without it\n')
      return len(content)


def _drop(number: int) -> None:
  """Makes a descriptor write nothing from now on."""
  nothing = os.open(os.devnull, os.O_WRONLY)
  os.dup2(nothing, number)
  os.close(nothing)
