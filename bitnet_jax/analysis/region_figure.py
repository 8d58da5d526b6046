"""Draws linear regions against parameters: as counted, and as the paper bounds them.

    python -m bitnet_jax.analysis.region_figure --output=regions.png

The left panel shows the counts of `region_counts`. The right panel shows them beside the bounds of
section 3.3 and marks the K from which on a bound falls.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from absl import flags
from matplotlib import axes, figure, ticker

from bitnet_jax.analysis import region_counts
from bitnet_jax.analysis.plotting import labels, plots
from bitnet_jax.analysis.region_counts import COUNTS, FEATURES, NUM_BLOCKS, NUM_INPUTS, TREE_DEPTHS
from bitnet_jax.analysis.regions import bounds
from bitnet_jax.analysis.regions.bounds import Shape
from bitnet_jax.runtime import cli, path_flags

# Color, marker and name by family.
FAMILIES = {
  'bitnet': (plots.COLORS[0], 'o', 'BitBlocks'),
  'conventional': (plots.COLORS[1], 's', 'ConvenBlocks'),
}
_BOUNDS: tuple[tuple[str, Callable[[Shape], float], str, str], ...] = (
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
    panel.xaxis.set_major_formatter('{x:,.0f}')
  for family, bound, dashes, name in _BOUNDS:
    _draw_bound(bounded, family, bound, dashes, name)
  sizes = f'D = {FEATURES}, L = {NUM_BLOCKS}, n = {NUM_INPUTS}'
  title = f'Counted: {sizes}, {len(region_counts.SEEDS)} seeds'
  plots.dress(counted, title, 'parameters', 'linear regions in the window')
  plots.logarithmic(counted, 'y')
  counted.yaxis.set_major_formatter('{x:,.0f}')
  plots.dress(bounded, f'Beside the bounds: {sizes}', 'parameters', 'linear regions')
  bounded.set_yscale('log')
  bounded.yaxis.set_major_locator(ticker.LogLocator(numticks=9))
  bounded.yaxis.set_minor_locator(ticker.NullLocator())
  handles, names = bounded.get_legend_handles_labels()
  fig.legend(handles, names, loc='outside lower center', ncols=3, frameon=False)
  _label_depths(fig, counted)
  return fig


def _linear_regions(family: str) -> np.ndarray:
  """Returns the counts of a family, `[tree depths, seeds]`."""
  return np.array([[linear for linear, _ in COUNTS[family, depth]] for depth in TREE_DEPTHS])


def _sizes(family: str) -> list[int]:
  return [region_counts.parameters(family, depth) for depth in TREE_DEPTHS]


def _draw_counts(panel: axes.Axes, family: str) -> None:
  """Draws the mean over the seeds, in a band from the least to the greatest count."""
  color, marker, name = FAMILIES[family]
  sizes, linear = _sizes(family), _linear_regions(family)
  panel.fill_between(sizes, linear.min(1), linear.max(1), color=color, alpha=0.2, linewidth=0)
  panel.plot(
    sizes,
    linear.mean(axis=1),
    color=color,
    marker=marker,
    markersize=5,
    label=f'{name}, counted: mean, least to greatest',
    gid=f'counted/{family}',
  )


def _draw_bound(
  panel: axes.Axes, family: str, bound: Callable[[Shape], float], dashes: str, name: str
) -> None:
  """Draws a bound for the tree depths that it is stated for, and marks its peak among them."""
  points = []
  for depth, size in zip(TREE_DEPTHS, _sizes(family), strict=True):
    try:
      log2 = bound(Shape(FEATURES, depth, NUM_BLOCKS, NUM_INPUTS))
    except ValueError:
      break  # D < 2^K n.
    points.append((size, 2.0**log2, depth))
  sizes, values, _ = zip(*points, strict=True)
  color = FAMILIES[family][0]
  panel.plot(
    sizes, values, color=color, linestyle=dashes, linewidth=1.2, label=name, gid=f'bound/{name}'
  )
  _mark_peak(panel, points, color)


def _mark_peak(panel: axes.Axes, points: Sequence[tuple[float, float, int]], color: str) -> None:
  """Marks where a bound is greatest, unless the bound grows to the end."""
  top = max(value for _, value, _ in points)
  peaks = [point for point in points if math.isclose(point[1], top)]
  if peaks == [points[-1]]:
    return
  for size, value, _ in peaks:
    panel.plot(size, value, color=color, marker='*', markersize=10, linestyle='')
  depths = ' and '.join(str(depth) for *_, depth in peaks)
  # The plot has room to the right below the other curves, and to the left above them.
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
    means = _linear_regions(family).mean(axis=1).tolist()
    for depth, size, mean in reversed(list(zip(TREE_DEPTHS, _sizes(family), means, strict=True))):
      if family == 'bitnet' or depth > 1:  # At K = 1 both families are the same network.
        points.append((float(size), mean))
        texts.append(f'K={depth}')
  labels.place(labels.settle(fig), panel, points, texts, marker=5, fontsize=9)


def main(argv: Sequence[str]) -> None:
  """Draws the figure into the file that the flag names."""
  del argv
  plots.check_output(flags.FLAGS.output)
  plots.save(draw(), flags.FLAGS.output)
  print(f'regions: {flags.FLAGS.output}')


if __name__ == '__main__':
  path_flags.define('output', None, 'PNG or SVG to write.', required=True)
  cli.run(main)
