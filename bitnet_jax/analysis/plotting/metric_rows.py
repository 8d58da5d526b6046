"""The metrics that a run wrote down, as rows and as curves over the epochs."""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bitnet_jax import errors


class Curve(NamedTuple):
  """Points of one quantity, by rising epoch; the epoch may be a fraction."""

  epochs: list[float]
  values: list[float]


def read_rows(workdir: str) -> list[dict]:
  """Reads the metrics of a run, in the order of the file.

  A last line without its newline is left out: the run is writing it now, or was
  killed in the middle of it.

  Args:
    workdir: directory of the run.

  Returns:
    One dict per line; each has a `kind` and an `epoch`.

  Raises:
    DataError: there is no `metrics.jsonl`, it has no row, or a line is no row.
  """
  path = pathlib.Path(workdir) / 'metrics.jsonl'
  try:
    text = path.read_text(encoding='utf-8')
  except (FileNotFoundError, NotADirectoryError):
    raise errors.DataError(
      'workdir', workdir, 'has no metrics.jsonl', 'give the --workdir of a run that has started'
    ) from None
  rows = [
    _parse(line, f'{path}:{number}')
    for number, line in enumerate(text.splitlines(keepends=True), start=1)
    if line.endswith('\n')
  ]
  if not rows:
    raise errors.DataError('workdir', workdir, 'its metrics.jsonl is empty', 'train further')
  return rows


def _parse(line: str, place: str) -> dict:
  try:
    row = json.loads(line)
    if isinstance(row, dict) and isinstance(row['kind'], str) and math.isfinite(row['epoch']):
      return row
  except (ValueError, KeyError, TypeError):
    pass
  raise errors.DataError(
    'metrics', place, 'not a row of metrics: ' + line.strip()[:60], 'remove that line'
  )


def select(rows: Sequence[Mapping], kind: str, field: str, scale: float = 1.0) -> Curve:
  """Picks one quantity out of the rows.

  Where a run was resumed and wrote an epoch again, the later row counts.

  Args:
    rows: of `read_rows`.
    kind: of the rows to read, `train`, `eval` or `epoch`.
    field: of those rows; rows without it, or where it is not finite, are left out.
    scale: multiplies the values.

  Returns:
    The points, by rising epoch.
  """
  points = {
    row['epoch']: row[field] * scale
    for row in rows
    if row['kind'] == kind and isinstance(row.get(field), int | float) and math.isfinite(row[field])
  }
  return Curve(sorted(points), [points[epoch] for epoch in sorted(points)])
