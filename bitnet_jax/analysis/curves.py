"""Learning curves of one or several runs, from their `metrics.jsonl`.

    python -m bitnet_jax.analysis.curves --workdir=runs/a --workdir=runs/b --output=curves.png

Four panels over the epochs: loss, error, learning rate, and the gradient's norm
at the stem (the paper's Figure 4 compares it between networks).
"""

from __future__ import annotations

import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import matplotlib

matplotlib.use('Agg')

from absl import flags
from matplotlib import axes, figure, lines, ticker

from bitnet_jax import cli, errors

# Okabe and Ito's colours, which stay apart for colour-blind readers; their
# yellow is left out, too pale for a line on white.
COLOURS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#E69F00', '#000000')
_FORMATS = ('.png', '.svg')
_TRAIN: dict[str, Any] = {'linestyle': (0, (4, 2)), 'linewidth': 1.2}
_TEST: dict[str, Any] = {'linestyle': '-', 'linewidth': 1.8}


class Curve(NamedTuple):
  """Points of one quantity, by rising epoch; the epoch may be a fraction."""

  epochs: list[float]
  values: list[float]


class Curves(NamedTuple):
  """What is drawn of one run; a curve without points is left out."""

  train_loss: Curve
  test_loss: Curve
  train_error: Curve
  test_error: Curve
  learning_rate: Curve
  stem_gradient_norm: Curve


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


def curves_of(rows: Sequence[Mapping]) -> Curves:
  """All curves of a run; errors in percent, the loss in nats."""
  # The mean over an epoch says more than the loss of single batches.
  train = 'epoch' if select(rows, 'epoch', 'loss').epochs else 'train'
  return Curves(
    train_loss=select(rows, train, 'loss'),
    test_loss=select(rows, 'eval', 'loss'),
    train_error=select(rows, train, 'error', scale=100),
    test_error=select(rows, 'eval', 'error', scale=100),
    learning_rate=select(rows, 'train', 'learning_rate'),
    stem_gradient_norm=select(rows, 'epoch', 'stem_gradient_norm'),
  )


def draw(runs: Mapping[str, Curves]) -> figure.Figure:
  """Draws the four panels.

  Args:
    runs: curves by the name that stands in the legend.

  Returns:
    The figure; each line's `gid` is `NAME/FIELD`, FIELD being one of `Curves`.
  """
  fig = figure.Figure(figsize=(10, 7.2), dpi=120, layout='constrained')
  panels = fig.subplots(2, 2)
  (loss, error), (rate, gradient) = panels
  for colour, (name, curves) in zip(COLOURS, runs.items(), strict=False):
    _line(loss, name, curves, 'train_loss', colour, _TRAIN)
    _line(loss, name, curves, 'test_loss', colour, _TEST)
    _line(error, name, curves, 'train_error', colour, _TRAIN)
    _line(error, name, curves, 'test_error', colour, _TEST)
    # A row holds the rate of the steps that lead up to it.
    _line(rate, name, curves, 'learning_rate', colour, {**_TEST, 'drawstyle': 'steps-pre'})
    _line(gradient, name, curves, 'stem_gradient_norm', colour, _TEST)
  _dress(loss, 'Loss', 'cross-entropy (nats)')
  _dress(error, 'Error', 'wrong predictions (%)')
  _dress(rate, 'Learning rate', 'step size', logarithmic=True)
  _dress(gradient, 'Gradient at the stem', 'L2 norm, mean of the epoch', logarithmic=True)
  _add_legend(fig, list(runs))
  return fig


def _line(
  panel: axes.Axes, name: str, curves: Curves, field: str, colour: str, style: Mapping
) -> None:
  curve: Curve = getattr(curves, field)
  if curve.epochs:
    # A single point makes no line.
    marker = 'o' if len(curve.epochs) == 1 else ''
    panel.plot(*curve, color=colour, marker=marker, gid=f'{name}/{field}', **style)


def _dress(panel: axes.Axes, title: str, unit: str, *, logarithmic: bool = False) -> None:
  panel.set_title(title, loc='left', fontsize=12)
  panel.set_xlabel('epoch')
  panel.set_ylabel(unit)
  panel.grid(color='#DDDDDD', linewidth=0.6)
  panel.spines[['top', 'right']].set_visible(False)
  panel.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, steps=(1, 2, 5, 10)))
  panel.set_xlim(left=0)
  low, high = panel.dataLim.intervaly
  if not panel.get_lines():
    panel.text(0.5, 0.5, 'not recorded', transform=panel.transAxes, ha='center', color='#666666')
  elif logarithmic and 0 < 10 * low < high:
    panel.set_yscale('log')
    panel.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5) if high < 1000 * low else (1,)))
    panel.yaxis.set_major_formatter('{x:g}')
    panel.yaxis.set_minor_formatter(ticker.NullFormatter())
  else:
    panel.set_ylim(bottom=0)


def _add_legend(fig: figure.Figure, names: Sequence[str]) -> None:
  handles = [
    lines.Line2D([], [], color=COLOURS[i], label=name, **_TEST) for i, name in enumerate(names)
  ]
  handles += [
    lines.Line2D([], [], color='#555555', label=label, **style)
    for label, style in (('training', _TRAIN), ('test', _TEST))
  ]
  # About 100 characters fit in a row, a line's sample taking the room of 8.
  columns = max(1, min(4, len(handles), 100 // (8 + max(map(len, names)))))
  fig.legend(handles=handles, loc='outside upper center', ncols=columns, frameon=False)


def _names(workdirs: Sequence[str]) -> list[str]:
  """The last parts of the paths, or the paths where these are alike."""
  names = [pathlib.PurePath(os.path.abspath(workdir)).name for workdir in workdirs]
  return names if len(set(names)) == len(names) else list(workdirs)


def write(workdirs: Sequence[str], output: str) -> None:
  """Draws the curves of the runs into a file.

  Args:
    workdirs: directories of runs.
    output: path of a PNG or SVG; its directory is made.

  Raises:
    ConfigError: `output` has another suffix, or there are more runs than colours.
    DataError: a run has no metrics, or they cannot be read.
  """
  path = pathlib.Path(output)
  if path.suffix not in _FORMATS:
    raise errors.ConfigError(
      'output', output, 'neither PNG nor SVG', 'end the name in .png or .svg'
    )
  workdirs = list(dict.fromkeys(workdirs))
  if len(workdirs) > len(COLOURS):
    raise errors.ConfigError(
      'workdir', f'({len(workdirs)} of them)', f'{len(COLOURS)} can be told apart', 'give fewer'
    )
  runs = {
    name: curves_of(read_rows(workdir))
    for name, workdir in zip(_names(workdirs), workdirs, strict=True)
  }
  path.parent.mkdir(parents=True, exist_ok=True)
  draw(runs).savefig(path)


def main(argv: Sequence[str]) -> None:
  """Draws what the flags ask for."""
  del argv
  write(flags.FLAGS.workdir, flags.FLAGS.output)
  print(f'curves: {flags.FLAGS.output}')


if __name__ == '__main__':
  flags.DEFINE_multi_string('workdir', None, 'Directory of a run; repeatable.', required=True)
  flags.DEFINE_string('output', None, 'PNG or SVG to write.', required=True)
  cli.run(main)
