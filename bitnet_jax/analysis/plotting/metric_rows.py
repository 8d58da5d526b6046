"""Reads the metrics of a run as rows, and as curves over the epochs, for the figures."""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from bitnet_jax import errors


class Curve(NamedTuple):
  """Holds the points of one quantity by rising epoch, which may be a fraction."""

  epochs: list[float]
  values: list[float]


def read_rows(workdir: str) -> list[dict]:
  """Reads the metrics of a run, in the order of the file.

  A last line without its newline is left out: the run is still writing the line, or was killed
  while it did.

  Args:
    workdir: directory of the run.

  Returns:
    One dict for each line; each has a `kind` and an `epoch`.

  Raises:
    DataError: the run has no `metrics.jsonl`, the file has no row, or a line is no row.
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
  """Returns the curve of one quantity; a later row of an epoch replaces an earlier one.

  Args:
    rows: rows of `read_rows`.
    kind: kind of the rows that are read: `train`, `eval` or `epoch`.
    field: the quantity; rows where it is missing or not finite are left out.
    scale: multiplies the values.
  """
  points = {
    row['epoch']: row[field] * scale
    for row in rows
    if row['kind'] == kind and isinstance(row.get(field), int | float) and math.isfinite(row[field])
  }
  return Curve(sorted(points), [points[epoch] for epoch in sorted(points)])
