"""Draws the result of `scaling`: seconds of a training step against multiply-adds."""

from __future__ import annotations

from typing import Any

from bitnet_jax.analysis.plotting import plots

_NAMES = {
  'model.width': 'width d',
  'model.tree_depth': 'tree depth k',
  'model.num_blocks': 'blocks of a stage n',
  'global_batch_size': 'batch',
  'data.image_size': 'image side',
}


def draw(line: dict[str, Any], output: str) -> None:
  """Draws a result of the benchmark.

  Args:
    line: a line that `benchmark` writes.
    output: path of a PNG or SVG file.
  """
  fig = plots.new_figure(8, 5)
  panel = fig.subplots()
  for (field, name), color in zip(_NAMES.items(), plots.COLORS, strict=False):
    cases = [case for case in line['result']['cases'] if case['field'] == field]
    work = [case['multiply_adds'] / 1e9 for case in cases]
    times = [1e3 * case['least'] for case in cases]
    values = ', '.join(str(case['value']) for case in cases)
    panel.plot(work, times, marker='o', color=color, label=f'{name}: {values}')
  for which in ('x', 'y'):
    plots.logarithmic(panel, which)
  title = f'{line["network"]} and networks around it, {line["dtype"]}'
  plots.dress(panel, title, 'multiply-adds of the forward pass, billions', 'training step, ms')
  panel.legend(frameon=False)
  plots.save(fig, output)
