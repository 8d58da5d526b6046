"""Subdivision of a two-dimensional slice into the cells on which a ReLU network is affine.

A cell is a convex polygon in which every neuron of the layers so far is either active throughout
or inactive throughout. A layer's neurons are affine in a cell; where one changes its sign within
it, its zero line cuts the cell in two. Nothing is sampled: after the last layer the cells are the
activation regions of the slice, each once, because a region of one pattern is convex.

Signs decide everything, and they are exact. Coefficients and corners are kept in floating point
with a bound of their error; a sign that the bound leaves open is computed with whole numbers from
the weights (`exact_maps`). So degenerate cases need no tolerance:

* a zero line that only touches a cell, at a corner or along an edge, does not cut it;
* a neuron that is zero throughout a cell counts as inactive there;
* lines that coincide or meet in one point leave no empty cells, because each cell that is cut has
  corners strictly on either side; every cell has an interior.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from bitnet_jax.analysis.regions import exact_maps, polygons
from bitnet_jax.analysis.regions.exact_maps import ExactMaps, Map
from bitnet_jax.analysis.regions.polygons import Corner, Line, Polygon
from bitnet_jax.analysis.regions.relu_network import ReluNetwork

_EPS = float(np.finfo(np.float64).eps)


class Frame:
  """The exact lines of a layer's neurons within a cell, computed when they are asked for."""

  def __init__(self, maps: ExactMaps, layer: int, pattern: bytes):
    self._maps, self._layer, self._pattern = maps, layer, pattern
    self._lines: dict[int, Map] = {}

  def line(self, neuron: int) -> Map:
    """Where a neuron is zero."""
    if neuron not in self._lines:
      self._lines[neuron] = self._maps.neuron(self._layer, self._pattern, neuron)
    return self._lines[neuron]


class Plane(NamedTuple):
  """A slice: the points origin + s * axes[0] + t * axes[1] with s and t between -1 and 1.

  Attributes:
    origin: `[num_inputs]`.
    axes: `[2, num_inputs]`; the second one zero for a segment.
  """

  origin: np.ndarray
  axes: np.ndarray


class Cell(NamedTuple):
  """An activation region of the slice.

  Attributes:
    corners: `[corners, 2]`, (s, t), up to rounding.
    pattern: which neurons are active, `[neurons]`, bool.
    logits: the head's maps, `[outputs, 3]`, up to `bounds`.
    bounds: of the logits' errors.
  """

  corners: np.ndarray
  pattern: np.ndarray
  logits: np.ndarray
  bounds: np.ndarray


class _State(NamedTuple):
  """A cell on its way through the layers; `signals` are maps, up to `bounds`."""

  layer: int
  polygon: Polygon
  signals: np.ndarray
  bounds: np.ndarray
  pattern: bytes


class Subdivision:
  """Cuts a slice; counts the signs that had to be computed exactly.

  Attributes:
    maps: exact ones, of the network on the slice.
    exact_signs: how many signs were left open by floating point.
  """

  def __init__(self, network: ReluNetwork, plane: Plane, *, always_exact: bool = False):
    """Prepares.

    Args:
      network: to take apart.
      plane: the slice.
      always_exact: decides every sign with whole numbers; for tests.
    """
    self._network, self._always_exact = network, always_exact
    self._inputs = np.column_stack([*plane.axes, plane.origin]).astype(np.float64)
    self._absolute = [np.abs(layer.weights) for layer in (*network.layers, network.head)]
    self.maps = ExactMaps(network, self._inputs)
    self.exact_signs = 0

  def cells(self) -> list[Cell]:
    """The activation regions of the slice."""
    start = _State(0, polygons.window(), self._inputs, np.zeros_like(self._inputs), b'')
    stack, found = [start], []
    while stack:
      state = stack.pop()
      if state.layer == len(self._network.layers):
        found.append(self._finish(state))
      else:
        stack += self._cut_layer(state)
    return found

  def _affine(self, state: _State) -> tuple[np.ndarray, np.ndarray]:
    """Maps of the layer's neurons within a cell, `[neurons, 3]`, and bounds of their errors."""
    layer = (*self._network.layers, self._network.head)[state.layer]
    signals, weights = state.signals[layer.sources], self._absolute[state.layer]
    maps = layer.weights @ signals
    maps[:, 2] += layer.bias
    # The sum of n products is off by at most n times eps/2 of the sum of their magnitudes; twice
    # that, and a few more terms, also cover the rounding of the bound itself.
    magnitude = weights @ np.abs(signals)
    magnitude[:, 2] += np.abs(layer.bias)
    bounds = weights @ state.bounds[layer.sources]
    bounds += (len(layer.sources) + 8) * _EPS * (magnitude + bounds)
    return maps, bounds

  def _finish(self, state: _State) -> Cell:
    logits, bounds = self._affine(state)
    corners = np.array([(corner.s, corner.t) for corner, _ in state.polygon])
    return Cell(corners, np.frombuffer(state.pattern, np.uint8).astype(bool), logits, bounds)

  def _cut_layer(self, state: _State) -> list[_State]:
    """Cuts a cell by a layer's neurons; the parts are cells of the next layer."""
    maps, bounds = self._affine(state)
    # |s| and |t| are at most 1, so these bound the error of a value at a corner: what the
    # coefficients and the sum contribute, and how fast the value changes with the corner's error.
    at_corner = bounds.sum(axis=1) + 4 * _EPS * np.abs(maps).sum(axis=1)
    slope = np.abs(maps[:, :2]).sum(axis=1) + bounds[:, :2].sum(axis=1)
    corners = np.array([(corner.s, corner.t, 1.0) for corner, _ in state.polygon])
    errors = np.array([corner.error for corner, _ in state.polygon])
    values = maps @ corners.T
    open_by = at_corner[:, None] + slope[:, None] * errors
    if self._always_exact:
      open_by = np.full_like(values, np.inf)
    active = (values > open_by).all(axis=1)
    undecided = np.flatnonzero(~active & ~(values < -open_by).all(axis=1))

    frame = Frame(self.maps, state.layer, state.pattern)
    parts: list[tuple[Polygon, list[int]]] = [(state.polygon, [])]
    for neuron in undecided.tolist():
      a, b, c = maps[neuron].tolist()
      line = Line(frame, neuron, a, b, c, float(bounds[neuron].max()))
      limits = (float(at_corner[neuron]), float(slope[neuron]))
      parts = [part for whole in parts for part in self._cut(whole, line, limits)]
    return [self._enter(state, maps, bounds, active, part) for part in parts]

  def _enter(
    self,
    state: _State,
    maps: np.ndarray,
    bounds: np.ndarray,
    active: np.ndarray,
    part: tuple[Polygon, list[int]],
  ) -> _State:
    """A part of a cell, with the layer's signals."""
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

  def _cut(
    self, part: tuple[Polygon, list[int]], line: Line, limits: tuple[float, float]
  ) -> list[tuple[Polygon, list[int]]]:
    """Cuts a polygon by a neuron's line; the part on the positive side takes the neuron up.

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
