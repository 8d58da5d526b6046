"""Metrics of a run on disk: JSON lines for programs, TensorBoard events for people."""

from __future__ import annotations

import json
import os
import pathlib
import sys
from typing import Any

from tensorboardX import SummaryWriter


class MetricWriter:
  """Appends rows to `metrics.jsonl` and scalars to `tensorboard/` of a work directory.

  A fault in writing metrics never ends a run: it is reported once.
  """

  def __init__(self, workdir: str, *, resume_step: int, tensorboard: bool, settled: bool = True):
    """Opens the files and drops what lies after the step that the run resumes from.

    Args:
      workdir: of the run.
      resume_step: steps taken so far; later rows, of steps that will be taken again, are dropped.
      tensorboard: whether to write events too.
      settled: False if the evaluation of that step is made again: its row is dropped too.
    """
    self._path = pathlib.Path(workdir) / 'metrics.jsonl'
    self._events: SummaryWriter | None = None
    self._warned = False
    self._guard(self._truncate, resume_step, settled)
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
    if self._events:
      self._guard(self._add_scalars, kind, step, values)

  def close(self) -> None:
    """Flushes the events."""
    if self._events:
      self._guard(self._events.close)

  def _guard(self, function: Any, *arguments: Any) -> None:
    try:
      function(*arguments)
    except OSError as error:
      if not self._warned:
        print(f'bitnet_jax: warning: metrics are not written: {error}', file=sys.stderr)
      self._warned = True

  def _truncate(self, resume_step: int, settled: bool) -> None:
    if not self._path.exists():
      return
    kept = [
      line
      for line in self._path.read_text().splitlines()
      if _step(line) <= resume_step
      and (settled or _step(line) < resume_step or '"kind": "eval"' not in line)
    ]
    temporary = self._path.with_name('.metrics.jsonl.tmp')
    temporary.write_text(''.join(f'{line}\n' for line in kept))
    os.replace(temporary, self._path)

  def _open_events(self, workdir: str, resume_step: int) -> None:
    folder = str(pathlib.Path(workdir) / 'tensorboard')
    purge_step = resume_step + 1 if resume_step else None
    # Two files of the same second would otherwise bear the same name.
    suffix = f'.{resume_step}'
    self._events = SummaryWriter(
      folder, purge_step=purge_step, flush_secs=10, filename_suffix=suffix
    )

  def _append(self, row: dict[str, Any]) -> None:
    with self._path.open('a') as file:
      file.write(json.dumps(row) + '\n')

  def _add_scalars(self, kind: str, step: int, values: dict[str, Any]) -> None:
    assert self._events
    for name, value in values.items():
      self._events.add_scalar(f'{kind}/{name}', value, step)


def _step(line: str) -> float:
  """The step of a row; of a row that a kill cut short, one that is always dropped."""
  try:
    return json.loads(line)['step']
  except (ValueError, KeyError, TypeError):
    return float('inf')
