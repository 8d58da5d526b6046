"""Draws error against parameters and multiply-adds, for every network of the paper's tables.

    python -m bitnet_jax.analysis.tradeoff --output=tradeoff.png [--measured=DIR ...]

The paper argues from this plot and does not draw it. Errors are the paper's; sizes are counted from
the networks as trained, and are the paper's for quoted networks. Stars show the errors of finished
runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from absl import flags
from matplotlib import axes, figure, lines

from bitnet_jax.analysis.audit import counts, measured, paper
from bitnet_jax.analysis.audit.paper import Row
from bitnet_jax.analysis.plotting import labels, plots
from bitnet_jax.runtime import cli, path_flags

CELLS = {
  paper.CIFAR10: 'CIFAR-10',
  paper.CIFAR100: 'CIFAR-100',
  paper.SINGLE_CROP: 'ILSVRC12, single crop',
}
# Color, marker and name by family.
_FAMILIES = {
  'bitnet': (plots.COLORS[0], 'o', 'BitNet (d,k,n)'),
  'wide_resnet': (plots.COLORS[1], 's', 'Wide ResNet (d,k,n)'),
  'plainnet': (plots.COLORS[2], 'D', 'plainnet (d,k,n)'),
  'resnet': (plots.COLORS[1], '^', 'ResNet B (width factor)'),
  'quoted': (plots.GRAY, 'v', 'quoted by the paper'),
}
_UNITS = {
  'parameters': (1e6, 'parameters (millions)'),
  'multiply_adds': (1e9, 'multiply-adds (10⁹)'),
}


class Point(NamedTuple):
  """Places a network in a panel.

  Attributes:
    family: a key of `_FAMILIES`.
    label: short name.
    size: millions of parameters, or billions of multiply-adds.
    error: error in percent.
    is_ours: whether a run of this implementation measured the error.
    series: name of the line that joins the point to others; Table 5 has one for each width.
  """

  family: str
  label: str
  size: float
  error: float
  is_ours: bool = False
  series: str = ''


def points(cell: str, quantity: str, runs: Sequence[measured.FinishedRun] = ()) -> list[Point]:
  """Returns every network of the tables with an error for a cell, once, and its finished runs.

  Args:
    cell: a key of `CELLS`.
    quantity: 'parameters' or 'multiply_adds'.
    runs: finished runs.
  """
  points_by_key: dict[str, Point] = {}
  for row in paper.ROWS:
    size = _size(row, quantity)
    if cell not in row.errors or size is None:
      continue
    key = row.key.partition('/')[2]
    family, label, series = _describe(row)
    point = Point(family, label, size, float(row.errors[cell]), series=series)
    # Table 5 repeats networks of Table 2, with the same errors.
    if key not in points_by_key or series:
      points_by_key[key] = point
    for group in measured.summarize(runs, row.network, cell) if row.network else []:
      points_by_key[f'{key} {group["epochs"]} {group["departures"]}'] = point._replace(
        label=f'{label} @{group["epochs"]:g}', error=group['mean'], is_ours=True, series=''
      )
  return list(points_by_key.values())


def _size(row: Row, quantity: str) -> float | None:
  if row.network:
    count = counts.count(row.network, quantity, row.network.trained)
    return count / _UNITS[quantity][0]
  return float(row.parameters) if quantity == 'parameters' and row.parameters else None


def _describe(row: Row) -> tuple[str, str, str]:
  """Returns family, label and series of a row's network."""
  network = row.network
  if network is None:
    return 'quoted', f'{row.label}-{row.depth}' if row.depth else row.label, ''
  family = next(family for family in _FAMILIES if network.name.startswith(family))
  if network.is_cifar:
    series = f'{network.width},k,{network.num_blocks}' if row.table == 5 else ''
    return family, f'{network.width},{network.tree_depth},{network.num_blocks}', series
  number = ''.join(filter(str.isdigit, network.name))
  factor = f' (x{network.width_factor:g})' if network.width_factor != 1 else ''
  return family, number + factor, ''


def draw(runs: Sequence[measured.FinishedRun] = ()) -> figure.Figure:
  """Draws a row of two panels for each data set."""
  fig = plots.new_figure(12, 15)
  labeled = []
  for row, (cell, title) in zip(fig.subplots(len(CELLS), 2), CELLS.items(), strict=True):
    for panel, quantity in zip(row, _UNITS, strict=True):
      inside, beyond = _within(points(cell, quantity, runs))
      _note(panel, beyond)
      labeled.append((panel, inside))
      _draw_panel(panel, inside)
      plots.dress(panel, title, _UNITS[quantity][1], 'test error (%)')
      plots.logarithmic(panel)
      panel.margins(x=0.09, y=0.09)
  fig.legend(handles=_legend(runs), loc='outside upper center', ncols=3 + bool(runs), frameon=False)
  renderer = labels.settle(fig)
  for panel, inside in labeled:
    places = [(point.size, point.error) for point in inside]
    labels.place(renderer, panel, places, [point.label for point in inside])
  return fig


def _within(every: Sequence[Point]) -> tuple[list[Point], list[Point]]:
  """Splits off measured errors far above all printed ones, as after a few epochs."""
  limit = 1.3 * max(point.error for point in every if not point.is_ours)
  inside = [point for point in every if point.error <= limit]
  return inside, [point for point in every if point.error > limit]


def _note(panel: axes.Axes, beyond: Sequence[Point]) -> None:
  """Lists the points that lie above the panel."""
  if beyond:
    names = [f'{point.family} {point.label}: {point.error:.1f} %' for point in beyond]
    text = '\n'.join(['measured here, above the plot:', *names])
    panel.text(0.98, 0.98, text, transform=panel.transAxes, ha='right', va='top', fontsize=8)


def _draw_panel(panel: axes.Axes, inside: Sequence[Point]) -> None:
  for series in {point.series for point in inside if point.series}:
    joined = [point for point in inside if point.series == series]
    joined.sort(key=lambda point: int(point.label.split(',')[1]))
    panel.plot(
      [point.size for point in joined],
      [point.error for point in joined],
      color=_FAMILIES['bitnet'][0],
      linewidth=0.8,
      alpha=0.6,
      zorder=1.5,
      gid=f'series/{series}',
    )
  for point in inside:
    panel.plot(point.size, point.error, gid=f'{point.family}/{point.label}', **_marker(point))


def _marker(point: Point) -> dict[str, Any]:
  color, marker, _ = _FAMILIES[point.family]
  style = {'color': color, 'linestyle': '', 'markeredgecolor': 'white', 'markeredgewidth': 0.6}
  star = {'marker': '*', 'markersize': 11, 'zorder': 3}
  return {**style, **(star if point.is_ours else {'marker': marker, 'markersize': 6})}


def _legend(runs: Sequence[measured.FinishedRun]) -> list[lines.Line2D]:
  handles = [
    lines.Line2D([], [], color=color, marker=marker, linestyle='', markersize=6, label=name)
    for color, marker, name in _FAMILIES.values()
  ]
  series = lines.Line2D([], [], color=_FAMILIES['bitnet'][0], linewidth=0.8, label='k = 1 to 6')
  ours = lines.Line2D(
    [], [], color='#333333', marker='*', linestyle='', markersize=11, label='measured here @epochs'
  )
  return [*handles, series, *([ours] if runs else [])]


def main(argv: Sequence[str]) -> None:
  """Draws the plot, with the runs that the flags name, into a file."""
  del argv
  plots.check_output(flags.FLAGS.output)
  plots.save(draw(measured.find(flags.FLAGS.measured)), flags.FLAGS.output)
  print(f'trade-off: {flags.FLAGS.output}')


if __name__ == '__main__':
  path_flags.define('output', None, 'PNG or SVG to write.', required=True)
  path_flags.define_many('measured', [], 'Finished run, or a folder of them; repeatable.')
  cli.run(main)
