"""Cuts convex polygons by lines for the subdivision, in floating point with an error bound."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from bitnet_jax.analysis.regions import exact_maps
from bitnet_jax.analysis.regions.exact_maps import Map

_EPS = float(np.finfo(np.float64).eps)
# The window's edges and the corners that they start at, counter-clockwise from the lower left.
_EDGES: tuple[Map, ...] = ((0, 1, 1), (-1, 0, 1), (0, -1, 1), (1, 0, 1))
_CORNERS = ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0))


class Line(NamedTuple):
  """Holds the line where a*s + b*t + c is zero.

  Attributes:
    exact_map: gives the line's coefficients in whole numbers, times a positive number.
    number: the argument of `exact_map`.
    a: coefficient of s.
    b: coefficient of t.
    c: constant.
    error: bound of the error of each coefficient.
  """

  exact_map: Callable[[int], Map]
  number: int
  a: float
  b: float
  c: float
  error: float

  def exact(self) -> Map:
    """Returns the line's coefficients in whole numbers."""
    return self.exact_map(self.number)


class Corner(NamedTuple):
  """Holds the point of the window where two lines meet; `error` bounds the error of s and of t."""

  s: float
  t: float
  error: float
  first: Line
  second: Line


# Corners counter-clockwise, each with the line to the next one.
Polygon = list[tuple[Corner, Line]]


def window() -> Polygon:
  """Returns the square of s and t between -1 and 1."""
  sides = [Line(_EDGES.__getitem__, number, *edge, 0.0) for number, edge in enumerate(_EDGES)]
  return [
    (Corner(s, t, 0.0, before, side), side)
    for (s, t), before, side in zip(_CORNERS, [sides[-1], *sides], sides, strict=False)
  ]


def split(polygon: Polygon, signs: Sequence[int], line: Line) -> tuple[Polygon, Polygon]:
  """Splits a convex polygon that has corners strictly on either side of a line.

  Args:
    polygon: the polygon to split.
    signs: exact sign of each corner; a corner on the line belongs to both parts.
    line: the line that splits.

  Returns:
    The parts on the positive and on the negative side.
  """
  positive: Polygon = []
  negative: Polygon = []
  for i, (corner, side) in enumerate(polygon):
    here, after = signs[i], signs[(i + 1) % len(polygon)]
    if here >= 0:
      positive.append((corner, side if here > 0 or after > 0 else line))
    if here <= 0:
      negative.append((corner, side if here < 0 or after < 0 else line))
    if here * after < 0:
      crossing = meet(side, line)
      positive.append((crossing, side if here < 0 else line))
      negative.append((crossing, line if here < 0 else side))
  return positive, negative


def meet(first: Line, second: Line) -> Corner:
  """Returns the corner where two lines meet, which must be one point of the window.

  Each two-by-two minor of the coefficients is off by at most `minor`. A coordinate is a minor over
  the determinant and at most 1, so its error is at most 2 * minor / (|determinant| - minor).
  """
  determinant = first.a * second.b - second.a * first.b
  sizes = [abs(line.a) + abs(line.b) + abs(line.c) + line.error for line in (first, second)]
  minor = first.error * sizes[1] + second.error * sizes[0] + 4 * _EPS * sizes[0] * sizes[1]
  certain = abs(determinant) - minor
  if certain <= 2 * minor:
    return Corner(*exact_maps.meet(first.exact(), second.exact()), 4 * _EPS, first, second)
  s = (first.b * second.c - second.b * first.c) / determinant
  t = (first.c * second.a - second.c * first.a) / determinant
  return Corner(_clip(s), _clip(t), 2 * minor / certain + 4 * _EPS, first, second)


def _clip(coordinate: float) -> float:
  return min(max(coordinate, -1.0), 1.0)
