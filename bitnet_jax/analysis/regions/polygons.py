"""Convex polygons in a window, cut by lines: in floating point with an error bound, or exactly."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from bitnet_jax.analysis.regions import exact_maps
from bitnet_jax.analysis.regions.exact_maps import Map

_EPS = float(np.finfo(np.float64).eps)


class _Window:
  """The lines of the window's edges, as a frame has them."""

  LINES: tuple[Map, ...] = ((0, 1, 1), (-1, 0, 1), (0, -1, 1), (1, 0, 1))

  def line(self, number: int) -> Map:
    return self.LINES[number]


class Line(NamedTuple):
  """Where a*s + b*t + c is zero.

  Attributes:
    frame: knows the exact line.
    number: under which.
    a: coefficient, as the next two up to `error`.
    b: coefficient.
    c: coefficient.
    error: bound of each coefficient's error.
  """

  frame: Any
  number: int
  a: float
  b: float
  c: float
  error: float

  def exact(self) -> Map:
    """The same in whole numbers."""
    return self.frame.line(self.number)


class Corner(NamedTuple):
  """Where two lines meet, within the window; `error` bounds that of s and of t."""

  s: float
  t: float
  error: float
  first: Line
  second: Line


# Corners counter-clockwise, each with the line from it to the next one.
Polygon = list[tuple[Corner, Line]]


def window() -> Polygon:
  """The square of s and t between -1 and 1, counter-clockwise from its lower left corner."""
  edges = _Window()
  sides = [Line(edges, number, a, b, c, 0.0) for number, (a, b, c) in enumerate(edges.LINES)]
  places = ((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0))
  return [(Corner(s, t, 0.0, sides[i - 1], sides[i]), sides[i]) for i, (s, t) in enumerate(places)]


def split(polygon: Polygon, signs: Sequence[int], line: Line) -> tuple[Polygon, Polygon]:
  """Splits a convex polygon that has corners strictly on either side of a line.

  Args:
    polygon: to split.
    signs: of the corners, exact; a corner on the line belongs to both parts.
    line: that splits.

  Returns:
    The parts on the positive and on the negative side.
  """
  positive: Polygon = []
  negative: Polygon = []
  for i, (corner, side) in enumerate(polygon):
    here, there = signs[i], signs[(i + 1) % len(polygon)]
    if here >= 0:
      positive.append((corner, side if here > 0 or there > 0 else line))
    if here <= 0:
      negative.append((corner, side if here < 0 or there < 0 else line))
    if here * there < 0:
      crossing = meet(side, line)
      positive.append((crossing, side if here < 0 else line))
      negative.append((crossing, line if here < 0 else side))
  return positive, negative


def meet(first: Line, second: Line) -> Corner:
  """Where two lines meet, known to be one point of the window.

  Each two-by-two minor of the coefficients is off by at most `minor`, so a coordinate, a minor
  over the determinant and at most 1, is off by at most 2 * minor / (|determinant| - minor).
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
