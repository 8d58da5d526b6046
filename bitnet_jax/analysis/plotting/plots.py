"""Gives all figures one style: colors, axes, names of runs, files. Loads no JAX."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence

import matplotlib

matplotlib.use('Agg')

from matplotlib import axes, figure, ticker

from bitnet_jax import errors

# Okabe and Ito's colors, which color-blind readers tell apart; their yellow is too pale for a line.
COLORS = ('#0072B2', '#D55E00', '#009E73', '#CC79A7', '#56B4E9', '#E69F00', '#000000')
GRAY = '#767676'
FORMATS = ('.png', '.svg')
matplotlib.rcParams['svg.hashsalt'] = 'bitnet_jax'  # Two runs write the same bytes.


def new_figure(width: float, height: float) -> figure.Figure:
  """Returns an empty figure; width and height are in inches of 120 pixels."""
  return figure.Figure(figsize=(width, height), dpi=120, layout='constrained')


def dress(panel: axes.Axes, title: str, horizontal: str, vertical: str) -> None:
  """Gives a panel its title, the names and units of its axes, and a quiet grid."""
  panel.set_title(title, loc='left', fontsize=12)
  panel.set_xlabel(horizontal)
  panel.set_ylabel(vertical)
  panel.grid(color='#DDDDDD', linewidth=0.6)
  panel.set_axisbelow(True)
  panel.spines[['top', 'right']].set_visible(False)


def count_epochs(panel: axes.Axes) -> None:
  """Starts the horizontal axis at 0 and marks whole epochs."""
  panel.xaxis.set_major_locator(ticker.MaxNLocator(integer=True, steps=(1, 2, 5, 10)))
  panel.set_xlim(left=0)


def logarithmic(panel: axes.Axes, which: str = 'x') -> None:
  """Makes an axis ('x' or 'y') logarithmic, with a few plain numbers in the range of the data."""
  low, high = getattr(panel.dataLim, f'interval{which}')
  getattr(panel, f'set_{which}scale')('log')
  axis = getattr(panel, f'{which}axis')
  subs = (1, 2, 5) if high > 10 * low else (1, 1.5, 2, 3, 4, 5, 7)
  axis.set_major_locator(ticker.LogLocator(subs=subs))
  axis.set_major_formatter('{x:g}')
  axis.set_minor_formatter(ticker.NullFormatter())


def names(workdirs: Sequence[str]) -> list[str]:
  """Returns the last parts of the paths, or the whole paths where two last parts are alike."""
  last = [pathlib.PurePath(os.path.abspath(workdir)).name for workdir in workdirs]
  return last if len(set(last)) == len(last) else list(workdirs)


def check_output(output: str) -> None:
  """Raises ConfigError unless the file's name ends in .png or .svg."""
  if pathlib.Path(output).suffix not in FORMATS:
    raise errors.ConfigError(
      'output', output, 'neither PNG nor SVG', 'end the name in .png or .svg'
    )


def save(fig: figure.Figure, output: str | os.PathLike[str]) -> None:
  """Writes a figure in the format that the file's name ends in, and makes the directory."""
  path = pathlib.Path(output)
  path.parent.mkdir(parents=True, exist_ok=True)
  fig.savefig(path, metadata={'Date': None} if path.suffix == '.svg' else None)
