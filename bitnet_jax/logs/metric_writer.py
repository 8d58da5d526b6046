"""Writes the metrics of a run: JSON lines for programs, TensorBoard events for people."""

from __future__ import annotations

import errno
import json
import math
import os
import pathlib
import time
from typing import Any

from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

from bitnet_jax.runtime import files, output

_FLUSH_SECONDS = 10
_ROWS = 'metrics.jsonl'


class MetricWriter:
  """Appends rows to `metrics.jsonl` and scalars to `tensorboard/` of a work directory.

  A fault in writing metrics never ends a run: it is reported once.
  """

  def __init__(self, workdir: str, *, resume_step: int, tensorboard: bool, evaluated: bool = True):
    """Opens the files and drops what lies after the step that the run resumes from.

    Args:
      workdir: of the run.
      resume_step: steps taken so far; later rows, of steps that will be taken again, are dropped.
      tensorboard: whether to write events too.
      evaluated: False if the evaluation of that step is made again: its row is dropped too.
    """
    self._path = pathlib.Path(workdir) / _ROWS
    # Rows go to this directory, never to another one that was made at the same path since.
    self._directory = os.open(workdir, os.O_RDONLY | os.O_DIRECTORY)
    # Not tensorboardX's own writer: its thread dies on a full disk, and whoever writes then waits
    # for ever.
    self._events: EventsWriter | None = None
    self._flushed = 0.0
    self._warned = False
    self._guard(self._truncate, resume_step, evaluated)
    if tensorboard:
      self._guard(self._open_events, workdir, resume_step)

  def write(self, kind: str, step: int, values: dict[str, Any]) -> None:
    """Writes one row.

    Args:
      kind: 'train' (an interval), 'epoch' (a whole epoch of training) or 'eval'.
      step: steps taken.
      values: numbers by name.
    """
    self._guard(self._append, {'kind': kind, 'step': step, **values})
    if self._events and not self._guard(self._add_scalars, self._events, kind, step, values):
      self._events = None  # What follows half a record could not be read.

  def close(self) -> None:
    """Flushes the events."""
    if self._events:
      self._guard(self._events.close)
      self._events = None
    if self._directory >= 0:
      os.close(self._directory)
      self._directory = -1

  def _guard(self, function: Any, *arguments: Any) -> bool:
    """Calls `function`; whether it worked."""
    try:
      function(*arguments)
    except OSError as error:
      if not self._warned:
        output.warn(f'metrics are not written: {error}')
      self._warned = True
      return False
    return True

  def _truncate(self, resume_step: int, evaluated: bool) -> None:
    if not self._path.exists():
      return
    kept = [
      line
      for line in self._path.read_bytes().splitlines()
      if _step(line) <= resume_step
      and (evaluated or _step(line) < resume_step or b'"kind": "eval"' not in line)
    ]
    files.write_atomically(self._path, b''.join(line + b'\n' for line in kept))

  def _open_events(self, workdir: str, resume_step: int) -> None:
    folder = pathlib.Path(workdir) / 'tensorboard'
    folder.mkdir(exist_ok=True)
    # Two files of the same second would otherwise bear the same name.
    self._events = EventsWriter(str(folder / 'events'), f'.{resume_step}')
    if resume_step:  # TensorBoard hides what was written from this step on.
      start = SessionLog(status=SessionLog.START)
      self._events.write_event(Event(step=resume_step + 1, session_log=start))

  def _append(self, row: dict[str, Any]) -> None:
    content = f'{json.dumps(row)}\n'.encode()
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    descriptor = os.open(_ROWS, flags, 0o666, dir_fd=self._directory)
    with open(descriptor, 'ab', buffering=0) as file:
      end = file.seek(0, os.SEEK_END)
      if file.write(content) < len(content):
        file.truncate(end)  # The next row would be glued to this half.
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._path))

  def _add_scalars(
    self, events: EventsWriter, kind: str, step: int, values: dict[str, Any]
  ) -> None:
    for name, value in values.items():
      scalar = summary.scalar(f'{kind}/{name}', value)
      events.write_event(Event(wall_time=time.time(), step=step, summary=scalar))
    if time.monotonic() - self._flushed > _FLUSH_SECONDS:
      events.flush()
      self._flushed = time.monotonic()


def _step(line: bytes) -> float:
  """Returns the step of a row; inf, which is always dropped, for a row that is cut short."""
  try:
    step = json.loads(line)['step']
  except (ValueError, KeyError, TypeError, RecursionError):
    return math.inf
  return step if type(step) is int else math.inf
