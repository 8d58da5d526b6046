"""Draws Figure 1: a conventional block and a binary tree block, from the structure of the modules.

    python -m bitnet_jax.analysis.figure1 --output=figure1.png [--features=256] [--tree_depth=3]

A bar is as wide as the layer has channels. Channels that the next layer reads are dark, channels of
the block's output are light; the topmost bar is the output.
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags
from matplotlib import axes, figure, patches

from bitnet_jax import errors
from bitnet_jax.analysis.audit import block_structure
from bitnet_jax.analysis.audit.block_structure import INPUT, Channels, Structure
from bitnet_jax.analysis.plotting import plots
from bitnet_jax.runtime import cli, path_flags

_PASSED, _KEPT, _INPUT = plots.COLORS[0], plots.COLORS[4], '#BBBBBB'
_BAR = 0.44  # Height of a bar; levels are 1 apart.
_TITLES = {'conventional': 'Conventional block', 'bitnet': 'Binary tree block'}


def draw(features: int = 256, tree_depth: int = 3) -> figure.Figure:
  """Draws both blocks.

  Args:
    features: width D.
    tree_depth: K.

  Raises:
    ValueError: `features` cannot be halved `tree_depth` times.
  """
  fig = plots.new_figure(10, 2.2 + 0.95 * tree_depth)
  for panel, (kind, title) in zip(fig.subplots(1, 2), _TITLES.items(), strict=True):
    structure = block_structure.of_block(kind, features, tree_depth)
    _draw_block(panel, structure, features)
    weights = sum(layer.parameters for layer in structure.convolutions)
    panel.set_title(
      f'{title}\nwidth {features}, depth {tree_depth}: {weights:,} weights', fontsize=12
    )
  handles = [
    patches.Patch(color=_INPUT, label='input'),
    patches.Patch(color=_PASSED, label='read by the next layer'),
    patches.Patch(color=_KEPT, label="part of the block's output"),
  ]
  fig.legend(handles=handles, loc='outside lower center', ncols=3, frameon=False)
  return fig


def _draw_block(panel: axes.Axes, structure: Structure, features: int) -> None:
  """Draws a block from its input, at the bottom, to its output, at the top.

  Channels keep their order from left to right, and a layer stands over the channels that it reads.
  """
  top = len(structure.convolutions) + 1
  panel.set_axis_off()
  panel.set_xlim(-0.08 * features, 1.04 * features)
  panel.set_ylim(-0.7, top + 0.6)
  places = {Channels(INPUT, 0, features): (0.0, 0)}
  _bar(panel, 0.0, 0, features, _INPUT)
  panel.text(features / 2, -0.3, 'input', ha='center', va='top', fontsize=10)
  for number, layer in enumerate(structure.convolutions, start=1):
    left, level = places[layer.inputs[0]]
    panel.text(-0.03 * features, number, f'{number}', ha='right', va='center', fontsize=10)
    _arrow(panel, left + layer.inputs[0].width / 2, level, number)
    for part, color in _parts(structure, number):
      places[part] = (left + part.start, number)
      _bar(panel, left + part.start, number, part.width, color)
  position = 0.0
  for part in structure.output:
    left, level = places[part]
    if left != position:
      raise ValueError(f'the output at channel {position:g} does not stand over {part}')
    _arrow(panel, position + part.width / 2, level, top)
    _bar(panel, position, top, part.width, _KEPT)
    position += part.width
  panel.text(features / 2, top + 0.3, 'output', ha='center', va='bottom', fontsize=10)


def _parts(structure: Structure, number: int) -> list[tuple[Channels, str]]:
  """Returns the ranges of a layer's channels that stay together, with their colors."""
  read = [part for layer in structure.convolutions for part in layer.inputs]
  parts = [(part, _PASSED) for part in read] + [(part, _KEPT) for part in structure.output]
  return sorted((part, color) for part, color in parts if part.source == number)


def _bar(panel: axes.Axes, left: float, level: int, width: int, color: str) -> None:
  place = (left, level - _BAR / 2)
  panel.add_patch(patches.Rectangle(place, width, _BAR, fc=color, ec='white', linewidth=1.5))
  ink = 'white' if color == _PASSED else 'black'
  panel.text(left + width / 2, level, str(width), ha='center', va='center', fontsize=10, color=ink)


def _arrow(panel: axes.Axes, middle: float, level: int, to_level: int) -> None:
  """Draws an arrow straight up from a bar to one above."""
  panel.annotate(
    '',
    xy=(middle, to_level - _BAR / 2 - 0.02),
    xytext=(middle, level + _BAR / 2 + 0.02),
    arrowprops={'arrowstyle': '-|>', 'color': '#333333', 'linewidth': 1.2, 'shrinkA': 0},
  )


def main(argv: Sequence[str]) -> None:
  """Draws the blocks of the sizes that the flags name."""
  del argv
  plots.check_output(flags.FLAGS.output)
  try:
    fig = draw(flags.FLAGS.features, flags.FLAGS.tree_depth)
  except ValueError as error:
    problem, _, remedy = str(error).rpartition(': ')[2].partition('; ')
    raise errors.ConfigError('features', flags.FLAGS.features, problem, remedy) from error
  plots.save(fig, flags.FLAGS.output)
  print(f'figure 1: {flags.FLAGS.output}')


if __name__ == '__main__':
  path_flags.define('output', None, 'PNG or SVG to write.', required=True)
  flags.DEFINE_integer('features', 256, 'Width of the blocks.', lower_bound=1)
  flags.DEFINE_integer('tree_depth', 3, 'Depth of the blocks.', lower_bound=1)
  cli.run(main)
