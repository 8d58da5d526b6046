"""Draws Figure 2: the gradient's norm at the first convolution, per epoch, of several networks.

    python -m bitnet_jax.analysis.figure2 --workdir=DIR [--workdir=DIR ...] --output=figure2.png

A directory is a run's, finished or not, or a folder of runs; `launch/figure2.sh` trains the nine
networks of the paper. Runs that differ only in their seed make one line, the mean, in a band of one
standard deviation. Each data set and each recipe gets a panel. A run without a finished epoch is
left out.

Source:
  Section 4.4. The paper leaves open what is averaged. This figure shows the L2 norm of the loss's
  gradient (without weight decay) with respect to the first convolution's weights, averaged over the
  steps of an epoch.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags
from matplotlib import axes, figure

from bitnet_jax import errors
from bitnet_jax.analysis.audit import measured, paper
from bitnet_jax.analysis.audit.networks import Network
from bitnet_jax.analysis.plotting import metric_rows, plots
from bitnet_jax.analysis.plotting.metric_rows import Curve
from bitnet_jax.runtime import cli, path_flags

FIELD = 'stem_gradient_norm'
_NINE = {row[0]: row[1] for row in paper.FIGURE2_ROWS}
# Lines of the nine differ in color, dashes and marker; the baselines are black.
_BLACK = plots.COLORS[-1]
_STYLES: dict[Network, dict[str, Any]] = {
  network: {'color': color, 'linestyle': dashes, 'marker': marker}
  for network, color, dashes, marker in zip(
    _NINE,
    (_BLACK, _BLACK, *(plots.COLORS[index] for index in (5, 4, 2, 1, 0, 3)), plots.GRAY),
    ('-', '--', '-', '-', '-', '-', '--', '--', '--'),
    ('s', 'x', 'o', '^', 'v', 'D', 'o', '^', 'v'),
    strict=True,
  )
}

# Title of a panel, then network, then a curve for each run.
Norms = dict[str, dict[Network, list[Curve]]]


def read(directories: Sequence[str]) -> Norms:
  """Reads the norms of runs.

  Args:
    directories: directories of runs, or folders of such directories.

  Raises:
    DataError: a directory has no run, or no run has finished an epoch.
  """
  panels: dict[tuple[str, tuple[str, ...]], dict[Network, list[Curve]]] = {}
  for workdir in measured.workdirs(directories, 'metrics.jsonl'):
    curve = metric_rows.select(metric_rows.read_rows(workdir), 'epoch', FIELD)
    if curve.epochs:
      config = measured.read_config(workdir)
      curves_of_networks = panels.setdefault((_data(config), _recipe(config)), {})
      curves_of_networks.setdefault(measured.network_of(config['model']), []).append(curve)
  if not panels:
    problem = 'no run there has finished an epoch'
    raise errors.DataError('workdir', ', '.join(directories), problem, 'train further')
  data = [name for name, _ in panels]
  return {
    ', '.join([name, *recipe]) if data.count(name) > 1 else name: curves_of_networks
    for (name, recipe), curves_of_networks in panels.items()
  }


def _data(config: Mapping[str, Any]) -> str:
  """Returns the data set's name, with the directory's where the set is a folder."""
  name = config['data']['name']
  return f'folder {pathlib.PurePath(config["data"]["dir"]).name}' if name == 'folder' else name


def _recipe(config: Mapping[str, Any]) -> tuple[str, ...]:
  """Returns how a run departs from the paper's recipe, except in its length."""
  departures = measured.departures(config)
  return tuple(field for field in departures if not field.startswith('num_epochs='))


def mean_and_spread(curves: Sequence[Curve]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns the epochs that all curves have, and the mean and standard deviation of each epoch."""
  epochs = sorted(set.intersection(*(set(curve.epochs) for curve in curves)))
  values = np.array(
    [[value for epoch, value in zip(*curve, strict=True) if epoch in epochs] for curve in curves]
  )
  spread = values.std(axis=0, ddof=1) if len(curves) > 1 else np.zeros(len(epochs))
  return np.array(epochs), values.mean(axis=0), spread


def draw(norms: Norms) -> figure.Figure:
  """Draws a panel for each data set; a line's `gid` is `DATA/LABEL`."""
  fig = plots.new_figure(10, 1.2 + 4.6 * len(norms))
  panels = fig.subplots(len(norms), 1, squeeze=False)[:, 0]
  for panel, (data, networks) in zip(panels, norms.items(), strict=True):
    _draw_panel(panel, data, networks)
    title = f'Gradient at the first convolution, {data}'
    plots.dress(panel, title, 'epoch', 'L2 norm, mean over the epoch')
    plots.count_epochs(panel)
    panel.set_ylim(bottom=0)
    panel.legend(loc='center left', bbox_to_anchor=(1.01, 0.5), frameon=False)
  return fig


def label(network: Network) -> str:
  """Returns a network's name in Figure 2's legend, or its row key where the figure lacks it."""
  return _NINE.get(network, str(network))


def _draw_panel(panel: axes.Axes, data: str, networks: Mapping[Network, list[Curve]]) -> None:
  others = [network for network in networks if network not in _NINE]
  for network in [*(network for network in _NINE if network in networks), *others]:
    style = _STYLES.get(network)
    if style is None:
      color = plots.COLORS[others.index(network) % len(plots.COLORS)]
      style = {'color': color, 'linestyle': ':', 'marker': 'P'}
    epochs, mean, spread = mean_and_spread(networks[network])
    panel.plot(
      epochs,
      mean,
      label=label(network),
      gid=f'{data}/{label(network)}',
      linewidth=1.5,
      markersize=5,
      markevery=max(1, len(epochs) // 10),
      **style,
    )
    if spread.any():
      low, high = mean - spread, mean + spread
      panel.fill_between(epochs, low, high, color=style['color'], alpha=0.2, linewidth=0)


def main(argv: Sequence[str]) -> None:
  """Draws the gradient norms of the runs that the flags name."""
  del argv
  plots.check_output(flags.FLAGS.output)
  plots.save(draw(read(flags.FLAGS.workdir)), flags.FLAGS.output)
  print(f'figure 2: {flags.FLAGS.output}')


if __name__ == '__main__':
  path_flags.define_many(
    'workdir', None, 'Directory of a run, or a folder of runs; repeatable.', required=True
  )
  path_flags.define('output', None, 'PNG or SVG to write.', required=True)
  cli.run(main)
