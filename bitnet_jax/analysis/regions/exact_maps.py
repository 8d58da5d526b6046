"""Exact arithmetic for the subdivision of a slice: affine maps with whole numbers.

Weights, biases and slices are floating-point numbers, so each is a whole number over a power of
two, and sums and products of such are again. Every affine map that a network computes within a
cell is kept as whole numbers with one positive scale, which no sign depends on.
"""

from __future__ import annotations

import fractions
import functools

import numpy as np

from bitnet_jax.analysis.regions.relu_network import Layer, ReluNetwork

# Coefficients (a, b, c) of the map a*s + b*t + c, or of the line where it is zero.
Map = tuple[int, int, int]


def dyadic(values: np.ndarray) -> tuple[np.ndarray, int]:
  """Whole numbers (Python's, in an object array) and an exponent: values = numbers / 2**exponent.

  Raises:
    OverflowError: a value is not finite; ValueError: it is not a number.
  """
  ratios = [float(value).as_integer_ratio() for value in values.ravel()]
  exponent = max((bottom.bit_length() - 1 for _, bottom in ratios), default=0)
  numbers = np.empty(len(ratios), object)
  numbers[:] = [(top << exponent) // bottom for top, bottom in ratios]
  return numbers.reshape(values.shape), exponent


class ExactMaps:
  """The affine maps of a network on a slice, for given activation patterns."""

  def __init__(self, network: ReluNetwork, signals: np.ndarray):
    """Takes the network apart.

    Args:
      network: whose maps.
      signals: `[num_inputs, 3]`, the inputs as maps of the slice's two coordinates.
    """
    self._inputs = dyadic(signals)
    self._layers = [_dyadic_layer(layer) for layer in (*network.layers, network.head)]
    self._sources = [layer.sources for layer in (*network.layers, network.head)]
    self._signals = functools.lru_cache(maxsize=64)(self._compute_signals)

  def neuron(self, layer: int, pattern: bytes, neuron: int) -> Map:
    """A neuron's map before its ReLU, times a positive number.

    Args:
      layer: of the neuron, counted from 0; the head comes after the last one.
      pattern: a byte for each neuron of the layers before, 1 where it is active.
      neuron: number within the layer.
    """
    rows, _ = self._affine(layer, pattern, slice(neuron, neuron + 1))
    return tuple(rows[0])

  def head(self, pattern: bytes) -> tuple[int, ...]:
    """All coefficients of the logits, as numbers that are equal where the functions are."""
    rows, exponent = self._affine(len(self._layers) - 1, pattern, slice(None))
    # One exponent for all patterns: scales differ only by what the pattern leaves out.
    top = sum(layer[2] for layer in self._layers) + self._inputs[1]
    return tuple(number << (top - exponent) for number in rows.ravel())

  def _affine(self, layer: int, pattern: bytes, which: slice) -> tuple[np.ndarray, int]:
    numbers, exponents = self._signals(layer, pattern)
    sources = self._sources[layer]
    top = max(exponents[sources])
    inputs = numbers[sources] << (top - exponents[sources])[:, None]
    weights, bias, exponent = self._layers[layer]
    rows = weights[which] @ inputs
    rows[:, 2] += bias[which] << top
    return rows, int(top + exponent)

  def _compute_signals(self, layer: int, pattern: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Maps of all signals before a layer, and the exponent of each."""
    if layer == 0:
      numbers, exponent = self._inputs
      return numbers, np.full(len(numbers), exponent, object)
    before = len(pattern) - len(self._layers[layer - 1][1])
    numbers, exponents = self._signals(layer - 1, pattern[:before])
    rows, exponent = self._affine(layer - 1, pattern[:before], slice(None))
    mask = np.frombuffer(pattern[before:], np.uint8).astype(object)
    rows = rows * mask[:, None]
    return np.concatenate([numbers, rows]), np.append(
      exponents, np.full(len(rows), exponent, object)
    )


def _dyadic_layer(layer: Layer) -> tuple[np.ndarray, np.ndarray, int]:
  numbers, exponent = dyadic(np.column_stack([layer.weights, layer.bias]))
  return numbers[:, :-1], numbers[:, -1], exponent


def sign_at(line: Map, first: Map, second: Map) -> int:
  """The sign of `line`'s map where the lines `first` and `second` meet: -1, 0 or 1.

  The two must not be parallel.
  """
  x, y, w = _cross(first, second)
  value = line[0] * x + line[1] * y + line[2] * w
  return _sign(value) * _sign(w)


def meet(first: Map, second: Map) -> tuple[float, float]:
  """Where two lines that are not parallel meet, rounded."""
  x, y, w = _cross(first, second)
  return float(fractions.Fraction(x, w)), float(fractions.Fraction(y, w))


def _cross(first: Map, second: Map) -> tuple[int, int, int]:
  """The point where two lines meet, as (x, y, w) for (x / w, y / w)."""
  return (
    first[1] * second[2] - second[1] * first[2],
    first[2] * second[0] - second[2] * first[0],
    first[0] * second[1] - second[0] * first[1],
  )


def _sign(value: int) -> int:
  return (value > 0) - (value < 0)
