"""Computes affine maps in whole numbers, so that the subdivision of a slice has exact signs.

Weights, biases and slices are floating-point numbers: each is a whole number over a power of two,
and so are their sums and products. Every affine map that a network computes within a cell is kept
as whole numbers over one power of two, which no sign depends on. The power is the same for all
signals that a layer may read, whatever the pattern.
"""

from __future__ import annotations

import fractions
import functools

import numpy as np

from bitnet_jax.analysis.regions.relu_network import ReluNetwork

# Coefficients (a, b, c) of the map a*s + b*t + c, or of the line where the map is zero.
Map = tuple[int, int, int]


def dyadic(values: np.ndarray) -> tuple[np.ndarray, int]:
  """Returns Python's whole numbers, in an object array, and an exponent.

  The values are the numbers over 2**exponent.

  Raises:
    OverflowError: a value is infinite.
    ValueError: a value is not a number.
  """
  ratios = [float(value).as_integer_ratio() for value in values.ravel()]
  exponent = max((bottom.bit_length() - 1 for _, bottom in ratios), default=0)
  numbers = np.empty(len(ratios), object)
  numbers[:] = [(top << exponent) // bottom for top, bottom in ratios]
  return numbers.reshape(values.shape), exponent


class ExactMaps:
  """Computes the affine maps of a network on a slice for given activation patterns."""

  def __init__(self, network: ReluNetwork, signals: np.ndarray):
    """Converts the weights.

    Args:
      network: the network whose maps are computed.
      signals: `[num_inputs, 3]`, the inputs as maps of the slice's two coordinates.
    """
    self._inputs, exponent = dyadic(signals)
    # For each layer and the head: weights and bias, the exponent of both, the exponent of the
    # signals that the layer reads, and which signals those are.
    self._layers: list[tuple[np.ndarray, int, int, np.ndarray]] = []
    for layer in (*network.layers, network.head):
      numbers, own_exponent = dyadic(np.column_stack([layer.weights, layer.bias]))
      self._layers.append((numbers, own_exponent, exponent, layer.sources))
      exponent += own_exponent
    self._signals = functools.lru_cache(maxsize=64)(self._compute_signals)

  def neuron(self, layer: int, pattern: bytes, neuron: int) -> Map:
    """Returns a neuron's map before its ReLU, times a positive number.

    Args:
      layer: layer of the neuron, counted from 0; the head comes after the last layer.
      pattern: a byte for each neuron of the layers before, 1 where the neuron is active.
      neuron: number of the neuron within the layer.
    """
    return tuple(self._affine(layer, pattern, slice(neuron, neuron + 1))[0])

  def head(self, pattern: bytes) -> tuple[int, ...]:
    """Returns all coefficients of the logits, as numbers that are equal where the functions are."""
    return tuple(self._affine(len(self._layers) - 1, pattern, slice(None)).ravel())

  def _affine(self, layer: int, pattern: bytes, neurons: slice) -> np.ndarray:
    numbers, _, exponent, sources = self._layers[layer]
    rows = numbers[neurons, :-1] @ self._signals(layer, pattern)[sources]
    rows[:, 2] += numbers[neurons, -1] << exponent
    return rows

  def _compute_signals(self, layer: int, pattern: bytes) -> np.ndarray:
    """Returns the maps of all signals before a layer, `[signals, 3]`."""
    if layer == 0:
      return self._inputs
    numbers, own_exponent, _, _ = self._layers[layer - 1]
    before = len(pattern) - len(numbers)
    mask = np.frombuffer(pattern[before:], np.uint8).astype(object)
    rows = self._affine(layer - 1, pattern[:before], slice(None)) * mask[:, None]
    return np.concatenate([self._signals(layer - 1, pattern[:before]) << own_exponent, rows])


def sign_at(line: Map, first: Map, second: Map) -> int:
  """Returns the sign, -1, 0 or 1, of `line`'s map where the lines `first` and `second` meet.

  The lines `first` and `second` must not be parallel.
  """
  x, y, w = _cross(first, second)
  return _sign(line[0] * x + line[1] * y + line[2] * w) * _sign(w)


def meet(first: Map, second: Map) -> tuple[float, float]:
  """Returns the point where two lines that are not parallel meet, rounded."""
  x, y, w = _cross(first, second)
  return float(fractions.Fraction(x, w)), float(fractions.Fraction(y, w))


def _cross(first: Map, second: Map) -> tuple[int, int, int]:
  """Returns the point where two lines meet as (x, y, w), which stands for (x / w, y / w)."""
  return (
    first[1] * second[2] - second[1] * first[2],
    first[2] * second[0] - second[2] * first[0],
    first[0] * second[1] - second[0] * first[1],
  )


def _sign(value: int) -> int:
  return (value > 0) - (value < 0)
