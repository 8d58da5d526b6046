"""Linear regions against parameters: counted, and as the paper bounds them.

    python -m bitnet_jax.analysis.region_figure --output=regions.png

Left: counts of `region_counts`. Right: the same beside the bounds of section 3.3, where K can be
seen beyond which a bound falls.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from absl import flags
from matplotlib import axes, figure, ticker

from bitnet_jax.analysis import region_counts
from bitnet_jax.analysis.plotting import labels, plots
from bitnet_jax.analysis.region_counts import COUNTS, FEATURES, NUM_BLOCKS, NUM_INPUTS, TREE_DEPTHS
from bitnet_jax.analysis.regions import bounds
from bitnet_jax.analysis.regions.bounds import Shape
from bitnet_jax.runtime import cli, path_flags

# Family: color, marker, name.
FAMILIES = {
  'bitnet': (plots.COLORS[0], 'o', 'BitBlocks'),
  'conventional': (plots.COLORS[1], 's', 'ConvenBlocks'),
}
_BOUNDS = (
  ('conventional', bounds.conventional_bound, '-', 'bound, corollary 3.2'),
  ('bitnet', bounds.tree_bound, '-', 'bound, proposition 3.3'),
  ('bitnet', bounds.intermediate_bound, '--', "bound within the proposition's proof"),
)


def draw() -> figure.Figure:
  """Draws both panels; a line's `gid` is `counted/FAMILY`, or `bound/NAME`."""
  fig = plots.new_figure(12, 6.4)
  counted, bounded = fig.subplots(1, 2)
  for panel in (counted, bounded):
    for family in FAMILIES:
      _draw_counts(panel, family)
    plots.logarithmic(panel)
  for family, bound, dashes, name in _BOUNDS:
    _draw_bound(bounded, family, bound, dashes, name)
  sizes = f'D = {FEATURES}, L = {NUM_BLOCKS}, n = {NUM_INPUTS}'
  title = f'Counted: {sizes}, {len(region_counts.SEEDS)} seeds'
  plots.dress(counted, title, 'parameters', 'linear regions in the window')
  plots.logarithmic(counted, 'y')
  for panel in (counted, bounded):
    panel.xaxis.set_major_formatter(ticker.FuncFormatter(_thousands))
  counted.yaxis.set_major_formatter(ticker.FuncFormatter(_thousands))
  plots.dress(bounded, f'Beside the bounds: {sizes}', 'parameters', 'linear regions')
  bounded.set_yscale('log')
  bounded.yaxis.set_major_locator(ticker.LogLocator(numticks=9))
  bounded.yaxis.set_minor_locator(ticker.NullLocator())
  handles, names = bounded.get_legend_handles_labels()
  fig.legend(handles, names, loc='outside lower center', ncols=3, frameon=False)
  _label_depths(fig, counted)
  return fig


def _thousands(value: float, position: int | None) -> str:
  del position
  return f'{value:,.0f}'


def _draw_counts(panel: axes.Axes, family: str) -> None:
  """The mean over the seeds, in a band from the least to the greatest count."""
  color, marker, name = FAMILIES[family]
  sizes = [region_counts.parameters(family, depth) for depth in TREE_DEPTHS]
  linear = np.array([[seed[0] for seed in COUNTS[family, depth]] for depth in TREE_DEPTHS])
  panel.fill_between(
    sizes, linear.min(axis=1), linear.max(axis=1), color=color, alpha=0.2, linewidth=0
  )
  panel.plot(
    sizes,
    linear.mean(axis=1),
    color=color,
    marker=marker,
    markersize=5,
    label=f'{name}, counted: mean, least to greatest',
    gid=f'counted/{family}',
  )


def _draw_bound(panel: axes.Axes, family: str, bound: object, dashes: str, name: str) -> None:
  """A bound, for the tree depths that it is stated for, with its peak among them marked."""
  points = []
  for depth in TREE_DEPTHS:
    try:
      log2 = bound(Shape(FEATURES, depth, NUM_BLOCKS, NUM_INPUTS))  # type: ignore[operator]
    except ValueError:
      break  # D < 2^K n.
    points.append((region_counts.parameters(family, depth), 2.0**log2, depth))
  sizes, values, _ = zip(*points, strict=True)
  color = FAMILIES[family][0]
  panel.plot(
    sizes, values, color=color, linestyle=dashes, linewidth=1.2, label=name, gid=f'bound/{name}'
  )
  _mark_peak(panel, points, color)


def _mark_peak(panel: axes.Axes, points: Sequence[tuple[float, float, int]], color: str) -> None:
  """Marks where a bound is greatest, unless it grows to the end."""
  top = max(value for _, value, _ in points)
  peaks = [point for point in points if math.isclose(point[1], top)]
  if len(peaks) == 1 and peaks[0] is points[-1]:
    return
  for size, value, _ in peaks:
    panel.plot(size, value, color=color, marker='*', markersize=10, linestyle='')
  depths = ' and '.join(str(depth) for *_, depth in peaks)
  # Below the other curves there is room to the right, above them to the left.
  is_high = top > 1e9
  panel.annotate(
    f'greatest at K = {depths}',
    peaks[-1][:2],
    (-4, 8) if is_high else (9, -3),
    textcoords='offset points',
    ha='right' if is_high else 'left',
    fontsize=9,
  )


def _label_depths(fig: figure.Figure, panel: axes.Axes) -> None:
  """Writes K beside each point."""
  points, texts = [], []
  for family in FAMILIES:
    for depth in reversed(TREE_DEPTHS):
      if family == 'bitnet' or depth > 1:  # At K = 1 both are the same network.
        mean = math.fsum(seed[0] for seed in COUNTS[family, depth]) / len(region_counts.SEEDS)
        points.append((float(region_counts.parameters(family, depth)), mean))
        texts.append(f'K={depth}')
  labels.place(labels.settle(fig), panel, points, texts, marker=5, fontsize=9)


def main(argv: Sequence[str]) -> None:
  """Draws the figure."""
  del argv
  plots.check_output(flags.FLAGS.output)
  plots.save(draw(), flags.FLAGS.output)
  print(f'regions: {flags.FLAGS.output}')


if __name__ == '__main__':
  path_flags.define('output', None, 'PNG or SVG to write.', required=True)
  cli.run(main)
