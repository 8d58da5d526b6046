"""Defines the fully connected blocks and networks of sections 3.2 and 3.3, for counting regions."""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax

from bitnet_jax.models import blocks, layers

ModuleDef = Any


def _dense(features: int, name: str) -> nn.Dense:
  return nn.Dense(features, kernel_init=layers.head_init, name=name)


class DenseBitBlock(nn.Module):
  """Computes a binary tree of fully connected layers with bias, each followed by ReLU.

  The block has no batch norm: the theory counts the linear regions of a ReLU network.

  Attributes:
    features: output width D, divisible by 2**tree_depth.
    tree_depth: levels K.

  Source:
    Sections 3.2 (fully connected BitBlock) and 3.3.
  """

  features: int
  tree_depth: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps `[batch, channels]` to `[batch, features]`.

    Raises:
      ValueError: `features` cannot be halved `tree_depth` times.
    """

    def layer(x: jax.Array, level: int, filters: int) -> jax.Array:
      return nn.relu(_dense(filters, f'level{level}_dense')(x))

    return blocks.binary_tree(x, self.features, self.tree_depth, layer)


class DenseConvenBlock(nn.Module):
  """Computes K stacked fully connected layers of width D with bias, each followed by ReLU.

  Attributes:
    features: width D.
    tree_depth: layers K.

  Source:
    Section 3.3, corollary 3.2.
  """

  features: int
  tree_depth: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps `[batch, channels]` to `[batch, features]`."""
    for layer in range(1, self.tree_depth + 1):
      x = nn.relu(_dense(self.features, f'layer{layer}_dense')(x))
    return x


class DenseNetwork(nn.Module):
  """Computes L fully connected blocks and a linear layer of logits.

  Attributes:
    block: `DenseBitBlock` or `DenseConvenBlock`.
    features: width D of every block.
    tree_depth: K of every block.
    num_blocks: number of blocks L.
    num_outputs: number of logits.

  Source:
    Section 3.3.
  """

  block: ModuleDef
  features: int
  tree_depth: int
  num_blocks: int
  num_outputs: int

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Maps `[batch, channels]` to `[batch, num_outputs]`."""
    for index in range(1, self.num_blocks + 1):
      x = self.block(self.features, self.tree_depth, name=f'block{index}')(x)
    return _dense(self.num_outputs, 'head')(x)
