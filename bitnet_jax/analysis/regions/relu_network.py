"""A fully connected ReLU network as a list of layers, for counting its linear regions.

The signals of a network are numbered: first its inputs, then the neurons of its layers in the
order in which they are computed. A layer reads any of the signals before it, which is how the
branches of a tree are written down.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np


class Layer(NamedTuple):
  """An affine map of some of the signals.

  Attributes:
    weights: `[neurons, fan_in]`, float64.
    bias: `[neurons]`, float64.
    sources: `[fan_in]`, the signals it reads.
  """

  weights: np.ndarray
  bias: np.ndarray
  sources: np.ndarray


class ReluNetwork(NamedTuple):
  """Layers with ReLU, then a linear head.

  Attributes:
    num_inputs: dimension n of the input.
    layers: each followed by ReLU.
    head: without.
  """

  num_inputs: int
  layers: tuple[Layer, ...]
  head: Layer


def from_params(params: Mapping[str, Any]) -> ReluNetwork:
  """The layers of a `models.dense.DenseNetwork`, of BitBlocks or of ConvenBlocks.

  Args:
    params: the network's 'params'.
  """
  num_inputs = _first(params['block1'])['kernel'].shape[0]
  sources, start = np.arange(num_inputs), num_inputs
  layers: list[Layer] = []
  for block in _numbered(params, 'block'):
    is_tree = 'level1_dense' in block
    outputs = []
    levels = _numbered(block, 'level' if is_tree else 'layer')
    for level, dense in enumerate(levels, start=1):
      layers.append(_layer(dense, sources))
      sources = np.arange(start, start + len(layers[-1].bias))
      start += len(sources)
      if is_tree and level < len(levels):
        right, sources = np.split(sources, 2)
        outputs.append(right)
    sources = np.concatenate([*outputs, sources])
  return ReluNetwork(num_inputs, tuple(layers), _layer(params['head'], sources))


def _layer(dense: Mapping[str, Any], sources: np.ndarray) -> Layer:
  kernel = np.asarray(dense['kernel'], np.float64)
  return Layer(np.ascontiguousarray(kernel.T), np.asarray(dense['bias'], np.float64), sources)


def _first(block: Mapping[str, Any]) -> Mapping[str, Any]:
  return block['level1_dense'] if 'level1_dense' in block else block['layer1_dense']


def _numbered(tree: Mapping[str, Any], prefix: str) -> list[Mapping[str, Any]]:
  """The subtrees `prefix1`, `prefix2` and so on, with any ending, in the order of the numbers."""
  found = {}
  for name, subtree in tree.items():
    match = re.match(rf'{prefix}(\d+)', name)
    if match:
      found[int(match.group(1))] = subtree
  return [found[number] for number in sorted(found)]


def evaluate(network: ReluNetwork, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Runs the network.

  Args:
    network: to run.
    points: `[points, num_inputs]`.

  Returns:
    The logits, `[points, outputs]`, and which neurons are active, `[points, neurons]`, bool.
  """
  signals = np.asarray(points, np.float64)
  patterns = []
  for layer in network.layers:
    pre = signals[:, layer.sources] @ layer.weights.T + layer.bias
    patterns.append(pre > 0)
    signals = np.concatenate([signals, np.maximum(pre, 0)], axis=1)
  logits = signals[:, network.head.sources] @ network.head.weights.T + network.head.bias
  return logits, np.concatenate(patterns, axis=1)


def live(network: ReluNetwork, pattern: np.ndarray) -> np.ndarray:
  """Which of the active neurons reach the head through active ones, `[neurons]`, bool.

  Where two patterns have the same live neurons, the network computes the same affine function.
  """
  useful = np.zeros(network.num_inputs + len(pattern), bool)
  useful[network.head.sources] = True
  stop = len(useful)
  for layer in reversed(network.layers):
    own = slice(stop - len(layer.bias), stop)
    stop = own.start
    useful[own] &= pattern[own.start - network.num_inputs : own.stop - network.num_inputs]
    reaches = (layer.weights[useful[own]] != 0).any(axis=0)
    useful[layer.sources] |= reaches
  return useful[network.num_inputs :]
