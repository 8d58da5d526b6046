"""Draws the learning curves of one or several runs from their `metrics.jsonl`.

    python -m bitnet_jax.analysis.curves --workdir=runs/a --workdir=runs/b --output=curves.png

Four panels show, over the epochs, loss, error, learning rate, and the gradient's norm at the stem,
which the paper's Figure 2 compares between networks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from absl import flags
from matplotlib import axes, figure, lines, ticker

from bitnet_jax import errors
from bitnet_jax.analysis.plotting import plots
from bitnet_jax.analysis.plotting.metric_rows import Curve, read_rows, select
from bitnet_jax.analysis.plotting.plots import COLORS
from bitnet_jax.runtime import cli, path_flags

_TRAIN: dict[str, Any] = {'linestyle': (0, (4, 2)), 'linewidth': 1.2}
_TEST: dict[str, Any] = {'linestyle': '-', 'linewidth': 1.8}


class Curves(NamedTuple):
  """Holds the curves of one run; a curve without points is not drawn."""

  train_loss: Curve
  test_loss: Curve
  train_error: Curve
  test_error: Curve
  learning_rate: Curve
  stem_gradient_norm: Curve


def curves_of(rows: Sequence[Mapping]) -> Curves:
  """Returns all curves of a run; errors are in percent, the loss is in nats."""
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
    runs: curves by the run's name in the legend.

  Returns:
    The figure; each line's `gid` is `NAME/FIELD`, where FIELD is one of `Curves`.
  """
  fig = plots.new_figure(10, 7.2)
  (loss, error), (rate, gradient) = fig.subplots(2, 2)
  for color, (name, curves) in zip(COLORS, runs.items(), strict=False):
    for panel, field, style in (
      (loss, 'train_loss', _TRAIN),
      (loss, 'test_loss', _TEST),
      (error, 'train_error', _TRAIN),
      (error, 'test_error', _TEST),
      # A row holds the rate of the steps that lead up to it.
      (rate, 'learning_rate', {**_TEST, 'drawstyle': 'steps-pre'}),
      (gradient, 'stem_gradient_norm', _TEST),
    ):
      curve: Curve = getattr(curves, field)
      if curve.epochs:
        marker = 'o' if len(curve.epochs) == 1 else ''  # A single point makes no line.
        panel.plot(*curve, color=color, marker=marker, gid=f'{name}/{field}', **style)
  _dress(loss, 'Loss', 'cross-entropy (nats)')
  _dress(error, 'Error', 'wrong predictions (%)')
  _dress(rate, 'Learning rate', 'step size', logarithmic=True)
  _dress(gradient, 'Gradient at the stem', 'L2 norm, mean of the epoch', logarithmic=True)
  _add_legend(fig, list(runs))
  return fig


def _dress(panel: axes.Axes, title: str, unit: str, *, logarithmic: bool = False) -> None:
  plots.dress(panel, title, 'epoch', unit)
  plots.count_epochs(panel)
  low, high = panel.dataLim.intervaly
  if not panel.get_lines():
    panel.text(0.5, 0.5, 'not recorded', transform=panel.transAxes, ha='center', color='#666666')
  elif logarithmic and 0 < 10 * low < high:
    plots.logarithmic(panel, 'y')
    if high >= 1000 * low:
      panel.yaxis.set_major_locator(ticker.LogLocator(subs=(1,)))
  else:
    panel.set_ylim(bottom=0)


def _add_legend(fig: figure.Figure, names: Sequence[str]) -> None:
  entries = [(name, COLORS[i], _TEST) for i, name in enumerate(names)]
  entries += [('training', '#555555', _TRAIN), ('test', '#555555', _TEST)]
  handles = [
    lines.Line2D([], [], label=name, color=color, **style) for name, color, style in entries
  ]
  # About 100 characters fit in a row, where the sample of a line takes the room of 8.
  columns = max(1, min(4, len(handles), 100 // (8 + max(map(len, names)))))
  fig.legend(handles=handles, loc='outside upper center', ncols=columns, frameon=False)


def write(workdirs: Sequence[str], output: str) -> None:
  """Draws the curves of the runs into a file.

  Args:
    workdirs: directories of runs.
    output: path of a PNG or SVG file, whose directory is made.

  Raises:
    ConfigError: `output` has another suffix, or the runs outnumber the colors.
    DataError: a run has no metrics, or they cannot be read.
  """
  plots.check_output(output)
  workdirs = list(dict.fromkeys(workdirs))
  if len(workdirs) > len(COLORS):
    raise errors.ConfigError(
      'workdir', f'({len(workdirs)} of them)', f'{len(COLORS)} can be told apart', 'give fewer'
    )
  runs = {
    name: curves_of(read_rows(workdir))
    for name, workdir in zip(plots.names(workdirs), workdirs, strict=True)
  }
  plots.save(draw(runs), output)


def main(argv: Sequence[str]) -> None:
  """Draws the curves of the runs that the flags name."""
  del argv
  write(flags.FLAGS.workdir, flags.FLAGS.output)
  print(f'curves: {flags.FLAGS.output}')


if __name__ == '__main__':
  path_flags.define_many('workdir', None, 'Directory of a run; repeatable.', required=True)
  path_flags.define('output', None, 'PNG or SVG to write.', required=True)
  cli.run(main)
