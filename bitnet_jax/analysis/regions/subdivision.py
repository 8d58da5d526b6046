"""Subdivides a two-dimensional slice into the cells on which a ReLU network is affine.

A cell is a convex polygon in which every neuron of the layers so far is either active throughout or
inactive throughout. A layer's neurons are affine in a cell; where a neuron changes its sign within
the cell, its zero line cuts the cell in two. Nothing is sampled: after the last layer the cells are
the activation regions of the slice, each once, because a region of one pattern is convex.

Signs decide everything, and they are exact. Coefficients and corners are kept in floating point
with a bound of their error; a sign that the bound leaves open is computed with whole numbers from
the weights (`exact_maps`). So degenerate cases need no tolerance:

* a zero line that only touches a cell, at a corner or along an edge, does not cut the cell;
* a neuron that is zero throughout a cell counts as inactive in the cell;
* lines that coincide or meet in one point leave no empty cells, because each cell that is cut has
  corners strictly on either side; every cell has an interior.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from bitnet_jax.analysis.regions import exact_maps, polygons
from bitnet_jax.analysis.regions.exact_maps import ExactMaps
from bitnet_jax.analysis.regions.polygons import Corner, Line, Polygon
from bitnet_jax.analysis.regions.relu_network import ReluNetwork

_EPS = float(np.finfo(np.float64).eps)


class Plane(NamedTuple):
  """Holds a slice: the points origin + s * axes[0] + t * axes[1] with s and t between -1 and 1.

  Attributes:
    origin: `[num_inputs]`.
    axes: `[2, num_inputs]`; the second axis is zero for a segment.
  """

  origin: np.ndarray
  axes: np.ndarray


class Cell(NamedTuple):
  """Holds an activation region of the slice.

  Attributes:
    corners: `[corners, 2]`, (s, t), up to rounding.
    pattern: which neurons are active, `[neurons]`, bool.
    logits: maps of the logits, `[outputs, 3]`.
    bounds: bounds of the errors of `logits`.
  """

  corners: np.ndarray
  pattern: np.ndarray
  logits: np.ndarray
  bounds: np.ndarray


class _State(NamedTuple):
  """Holds a cell on its way through the layers; `bounds` bounds the errors of the signals' maps."""

  layer: int
  polygon: Polygon
  signals: np.ndarray
  bounds: np.ndarray
  pattern: bytes


# A part of a cell, and the neurons of the layer that are active in it but not in the whole cell.
_Part = tuple[Polygon, list[int]]


class Subdivision:
  """Cuts a slice into cells and counts the signs that had to be computed exactly.

  Attributes:
    maps: exact maps of the network on the slice.
    exact_signs: number of signs that floating point left open.
  """

  def __init__(self, network: ReluNetwork, plane: Plane, *, always_exact: bool = False):
    """Prepares the maps of the slice.

    Args:
      network: the network whose regions are sought.
      plane: the slice.
      always_exact: decides every sign with whole numbers; for tests.
    """
    self._layers, self._always_exact = (*network.layers, network.head), always_exact
    self._inputs = np.column_stack([*plane.axes, plane.origin]).astype(np.float64)
    self.maps = ExactMaps(network, self._inputs)
    self.exact_signs = 0

  def cells(self) -> list[Cell]:
    """Returns the activation regions of the slice."""
    start = _State(0, polygons.window(), self._inputs, np.zeros_like(self._inputs), b'')
    stack, cells = [start], []
    while stack:
      state = stack.pop()
      if state.layer < len(self._layers) - 1:
        stack += self._cut_layer(state)
      else:
        corners = np.array([(corner.s, corner.t) for corner, _ in state.polygon])
        pattern = np.frombuffer(state.pattern, np.uint8).astype(bool)
        cells.append(Cell(corners, pattern, *self._affine(state)))
    return cells

  def _affine(self, state: _State) -> tuple[np.ndarray, np.ndarray]:
    """Returns the maps of a layer's neurons within a cell, `[neurons, 3]`, and error bounds."""
    layer = self._layers[state.layer]
    signals, weights = state.signals[layer.sources], np.abs(layer.weights)
    maps = layer.weights @ signals
    maps[:, 2] += layer.bias
    # The sum of n products is off by at most n times eps/2 of the sum of their magnitudes; twice
    # that, and a few more terms, also cover the rounding of the bound itself.
    magnitude = weights @ np.abs(signals)
    magnitude[:, 2] += np.abs(layer.bias)
    bounds = weights @ state.bounds[layer.sources]
    bounds += (len(layer.sources) + 8) * _EPS * (magnitude + bounds)
    return maps, bounds

  def _cut_layer(self, state: _State) -> list[_State]:
    """Cuts a cell by a layer's neurons and returns the parts as cells of the next layer."""
    maps, bounds = self._affine(state)
    # |s| and |t| are at most 1, so these bound the error of a value at a corner: what the
    # coefficients and the sum contribute, and how fast the value changes with the corner's error.
    at_corner = bounds.sum(axis=1) + 4 * _EPS * np.abs(maps).sum(axis=1)
    slope = np.abs(maps[:, :2]).sum(axis=1) + bounds[:, :2].sum(axis=1)
    corners = np.array([(corner.s, corner.t, 1.0) for corner, _ in state.polygon])
    errors = np.array([corner.error for corner, _ in state.polygon])
    values = maps @ corners.T
    uncertainty = at_corner[:, None] + slope[:, None] * errors
    if self._always_exact:
      uncertainty = np.full_like(values, np.inf)
    active = (values > uncertainty).all(axis=1)
    undecided = np.flatnonzero(~active & ~(values < -uncertainty).all(axis=1))

    exact_map = functools.cache(functools.partial(self.maps.neuron, state.layer, state.pattern))
    parts: list[_Part] = [(state.polygon, [])]
    for neuron in undecided.tolist():
      a, b, c = maps[neuron].tolist()
      line = Line(exact_map, neuron, a, b, c, float(bounds[neuron].max()))
      limits = (float(at_corner[neuron]), float(slope[neuron]))
      parts = [part for whole in parts for part in self._cut(whole, line, limits)]
    return [_enter(state, maps, bounds, active, part) for part in parts]

  def _cut(self, part: _Part, line: Line, limits: tuple[float, float]) -> list[_Part]:
    """Cuts a polygon by a neuron's line; the neuron joins the part on the positive side.

    A value at a corner is off by at most limits[0] + limits[1] * the corner's error.
    """
    polygon, chosen = part
    signs = []
    for corner, _ in polygon:
      value = line.a * corner.s + line.b * corner.t + line.c
      if abs(value) > limits[0] + limits[1] * corner.error and not self._always_exact:
        signs.append(1 if value > 0 else -1)
      else:
        signs.append(self._exact_sign(line, corner))
    if min(signs) >= 0 or max(signs) <= 0:
      return [(polygon, [*chosen, line.number] if max(signs) > 0 else chosen)]
    positive, negative = polygons.split(polygon, signs, line)
    return [(positive, [*chosen, line.number]), (negative, chosen)]

  def _exact_sign(self, line: Line, corner: Corner) -> int:
    self.exact_signs += 1
    return exact_maps.sign_at(line.exact(), corner.first.exact(), corner.second.exact())


def _enter(
  state: _State, maps: np.ndarray, bounds: np.ndarray, active: np.ndarray, part: _Part
) -> _State:
  """Returns a part of a cell as a cell of the next layer, with the layer's signals."""
  polygon, chosen = part
  mask = active.copy()
  mask[chosen] = True
  return _State(
    state.layer + 1,
    polygon,
    np.concatenate([state.signals, maps * mask[:, None]]),
    np.concatenate([state.bounds, bounds * mask[:, None]]),
    state.pattern + mask.tobytes(),
  )
