"""Represents a fully connected ReLU network as a list of layers, for counting its linear regions.

The signals of a network are numbered: its inputs come first, then the neurons of its layers in the
order in which they are computed. A layer reads any of the signals before it, which is how the
branches of a tree are represented.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np


class Layer(NamedTuple):
  """Maps some of the signals affinely.

  Attributes:
    weights: `[neurons, fan_in]`, float64.
    bias: `[neurons]`, float64.
    sources: `[fan_in]`, the signals that the layer reads.
  """

  weights: np.ndarray
  bias: np.ndarray
  sources: np.ndarray


class ReluNetwork(NamedTuple):
  """Holds `num_inputs` (the paper's n), the layers, each followed by ReLU, and the linear head."""

  num_inputs: int
  layers: tuple[Layer, ...]
  head: Layer


def from_params(params: Mapping[str, Any]) -> ReluNetwork:
  """Returns the layers of a `dense.DenseNetwork`, of BitBlocks or of ConvenBlocks.

  Args:
    params: the network's 'params'.
  """
  is_tree = 'level1_dense' in params['block1']
  prefix = 'level' if is_tree else 'layer'
  blocks = [_numbered(block, prefix) for block in _numbered(params, 'block')]
  num_inputs = num_signals = len(blocks[0][0]['kernel'])
  sources = np.arange(num_inputs)
  layers: list[Layer] = []
  for levels in blocks:
    outputs = []
    for level, dense in enumerate(levels, start=1):
      layers.append(_layer(dense, sources))
      sources = num_signals + np.arange(len(layers[-1].bias))
      num_signals += len(sources)
      if is_tree and level < len(levels):
        right, sources = np.split(sources, 2)
        outputs.append(right)
    sources = np.concatenate([*outputs, sources])
  return ReluNetwork(num_inputs, tuple(layers), _layer(params['head'], sources))


def _layer(dense: Mapping[str, Any], sources: np.ndarray) -> Layer:
  kernel = np.asarray(dense['kernel'], np.float64)
  return Layer(np.ascontiguousarray(kernel.T), np.asarray(dense['bias'], np.float64), sources)


def _numbered(tree: Mapping[str, Any], prefix: str) -> list[Mapping[str, Any]]:
  """Returns the subtrees `prefix1`, `prefix2` and so on, with any ending, in numeric order."""
  matches = [(re.match(rf'{prefix}(\d+)', name), subtree) for name, subtree in tree.items()]
  numbered = {int(match[1]): subtree for match, subtree in matches if match}
  return [numbered[number] for number in sorted(numbered)]


def evaluate(network: ReluNetwork, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Runs the network.

  Args:
    network: the network to run.
    points: `[points, num_inputs]`.

  Returns:
    The logits, `[points, outputs]`, and which neurons are active, `[points, neurons]`, bool.
  """
  signals = np.asarray(points, np.float64)
  for layer in network.layers:
    values = signals[:, layer.sources] @ layer.weights.T + layer.bias
    signals = np.concatenate([signals, np.maximum(values, 0)], axis=1)
  logits = signals[:, network.head.sources] @ network.head.weights.T + network.head.bias
  return logits, signals[:, network.num_inputs :] > 0


def live(network: ReluNetwork, pattern: np.ndarray) -> np.ndarray:
  """Returns which of the active neurons reach the head through active ones, `[neurons]`, bool.

  Two patterns with the same live neurons belong to the same affine function.
  """
  useful = np.zeros(network.num_inputs + len(pattern), bool)
  useful[network.head.sources] = True
  active = np.concatenate([np.ones(network.num_inputs, bool), pattern])
  stop = len(useful)
  for layer in reversed(network.layers):
    own = slice(stop - len(layer.bias), stop)
    stop = own.start
    useful[own] &= active[own]
    useful[layer.sources] |= (layer.weights[useful[own]] != 0).any(axis=0)
  return useful[network.num_inputs :]
