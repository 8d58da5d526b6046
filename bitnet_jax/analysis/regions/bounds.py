"""Bounds the linear regions of fully connected networks as the paper does, and counts them exactly.

The paper bounds from below how many linear regions a network of some shape can have and counts
none. `count_on_plane` and `count_on_line` count the regions of a given network exactly on a bounded
piece of a plane or a line through its input space (`subdivision`).

Source:
  Section 3.3 and supplement A.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from bitnet_jax.analysis.regions import relu_network
from bitnet_jax.analysis.regions.relu_network import ReluNetwork
from bitnet_jax.analysis.regions.subdivision import Cell, Plane, Subdivision


class Shape(NamedTuple):
  """Describes a fully connected network as section 3.3 does.

  Attributes:
    features: width D of every block.
    tree_depth: K of every block.
    num_blocks: number of blocks L.
    num_inputs: dimension n of the input.
  """

  features: int
  tree_depth: int
  num_blocks: int
  num_inputs: int


def conventional_parameters(shape: Shape) -> int:
  """Returns the weights by Corollary 3.2, L K D^2."""
  return shape.num_blocks * shape.tree_depth * shape.features**2


def tree_parameters(shape: Shape) -> float:
  """Returns the weights by Proposition 3.3, 4/3 L (1 - 4^-K) D^2."""
  return 4 / 3 * shape.num_blocks * (1 - 4.0**-shape.tree_depth) * shape.features**2


def conventional_bound(shape: Shape) -> float:
  """Returns log2 of the bound of Corollary 3.2, (D/n)^(n K L), which grows with K where D > n.

  Raises:
    ValueError: D < n, where the corollary says nothing.
  """
  _check(shape, shape.num_inputs)
  n, depth = shape.num_inputs, shape.tree_depth
  return n * depth * shape.num_blocks * math.log2(shape.features / n)


def tree_bound(shape: Shape) -> float:
  """Returns log2 of the bound of Proposition 3.3, (D / (2^K n))^(n K L).

  Raises:
    ValueError: D < 2^K n, where the proposition says nothing.
  """
  n, depth = shape.num_inputs, shape.tree_depth
  _check(shape, 2**depth * n)
  return n * depth * shape.num_blocks * (math.log2(shape.features / n) - depth)


def intermediate_bound(shape: Shape) -> float:
  """Returns log2 of the bound within the proof, prod_k (D / (2^k n))^n for each of L blocks.

  Raises:
    ValueError: D < 2^K n.
  """
  n, depth = shape.num_inputs, shape.tree_depth
  _check(shape, 2**depth * n)
  block = depth * math.log2(shape.features / n) - depth * (depth + 1) / 2
  return n * shape.num_blocks * block


def _check(shape: Shape, min_features: int) -> None:
  if shape.features < min_features:
    raise ValueError(
      f'features={shape.features}: the bound needs at least {min_features} for {shape}'
    )


def tree_bound_peak(features: int, num_inputs: int) -> float:
  """Returns log2(D/n) / 2, the K up to which the bound of Proposition 3.3 grows."""
  return math.log2(features / num_inputs) / 2


def intermediate_bound_peak(features: int, num_inputs: int) -> float:
  """Returns log2(D/n) - 1/2, the K up to which the bound within the proof grows."""
  return math.log2(features / num_inputs) - 0.5


class Count(NamedTuple):
  """Counts the regions of a piece of a plane or a line.

  Attributes:
    activation: number of activation patterns that hold on an open part of the piece.
    linear: number of different affine functions on the piece, which Definition 3.1 counts. They are
      never more than the patterns, because neurons that nothing active reads make no difference.
    exact_signs: number of signs that floating point left open and whole numbers decided.
  """

  activation: int
  linear: int
  exact_signs: int


def count_on_plane(params: Mapping[str, Any], origin: np.ndarray, axes: np.ndarray) -> Count:
  """Counts regions on the parallelogram origin + s * axes[0] + t * axes[1], -1 <= s, t <= 1.

  Args:
    params: 'params' of a `dense.DenseNetwork`.
    origin: `[num_inputs]`.
    axes: `[2, num_inputs]`, linearly independent rows.
  """
  return count_cells(*cells_on_plane(params, origin, axes))


def cells_on_plane(
  params: Mapping[str, Any], origin: np.ndarray, axes: np.ndarray, *, always_exact: bool = False
) -> tuple[ReluNetwork, Subdivision, list[Cell]]:
  """Returns the network, the subdivision and its cells; the arguments are `count_on_plane`'s."""
  network = relu_network.from_params(params)
  plane = Plane(np.asarray(origin, np.float64), np.asarray(axes, np.float64))
  subdivision = Subdivision(network, plane, always_exact=always_exact)
  return network, subdivision, subdivision.cells()


def count_on_line(params: Mapping[str, Any], start: np.ndarray, end: np.ndarray) -> Count:
  """Counts regions on the segment between two points.

  The segment is a slice whose second axis is zero: each region is a strip of the window.

  Args:
    params: 'params' of a `dense.DenseNetwork`.
    start: `[num_inputs]`.
    end: `[num_inputs]`.
  """
  start, end = np.asarray(start, np.float64), np.asarray(end, np.float64)
  half = (end - start) / 2
  return count_on_plane(params, start + half, np.stack([half, np.zeros_like(half)]))


def count_cells(network: ReluNetwork, subdivision: Subdivision, cells: list[Cell]) -> Count:
  """Counts the cells of a subdivision and the different affine functions on them."""
  linear = 0
  values = np.stack([cell.logits.ravel() for cell in cells])
  bounds = np.stack([cell.bounds.ravel() for cell in cells])
  for group in _indistinct(values, bounds):
    members = [cells[index] for index in group]
    linear += 1 if len(members) == 1 else _count_functions(network, subdivision, members)
  return Count(len(cells), linear, subdivision.exact_signs)


def _indistinct(values: np.ndarray, bounds: np.ndarray) -> list[np.ndarray]:
  """Groups the indices of rows so that rows of different groups certainly differ.

  Args:
    values: `[rows, columns]`.
    bounds: bounds of the errors of `values`, of the same shape.
  """
  groups = [np.arange(len(values))]
  for column in range(values.shape[1]):
    refined = []
    for group in groups:
      low = values[group, column] - bounds[group, column]
      high = values[group, column] + bounds[group, column]
      order = np.argsort(low)
      gaps = low[order][1:] > np.maximum.accumulate(high[order])[:-1]
      refined += np.split(group[order], np.flatnonzero(gaps) + 1)
    groups = refined
  return groups


def _count_functions(network: ReluNetwork, subdivision: Subdivision, cells: list[Cell]) -> int:
  """Counts the different functions on cells that floating point cannot tell apart."""
  patterns = {relu_network.live(network, cell.pattern).tobytes() for cell in cells}
  if len(patterns) == 1:
    return 1
  return len({subdivision.maps.head(pattern) for pattern in patterns})
