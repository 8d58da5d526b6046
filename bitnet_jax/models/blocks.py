"""Builds the blocks of the networks: binary tree, conventional stack and residual blocks.

The paper's letters and the names used here:

  D  features     output channels of a block
  K  tree_depth   levels of a tree, or layers of a conventional block
  k  level        counted from 1
  s  strides      applied by the first level or layer alone
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from bitnet_jax.config import sizes

ModuleDef = Any


def check_divisible(features: int, tree_depth: int) -> None:
  """Raises ValueError unless a tree of that depth can halve `features` at every level."""
  if not sizes.tree_fits(features, tree_depth):
    unit = 2**tree_depth
    lower, upper = sizes.nearest_multiples(features, unit)
    raise ValueError(
      f'features={features}: not divisible by {unit} (2**tree_depth, tree_depth={tree_depth}); '
      f'use {lower} or {upper}'
    )


def binary_tree(
  x: jax.Array,
  features: int,
  tree_depth: int,
  layer: Callable[[jax.Array, int, int], jax.Array],
) -> jax.Array:
  """Runs a binary tree over `x`.

  With x_0 the input and f_k the layer of level k,

      [right_k, left_k] = f_k(left_(k-1)),   left_0 = x_0,   right_k, left_k: D / 2**k channels
      y = concat(right_1, ..., right_K, left_K).

  Left and right of a level read the same input, so one fused layer f_k of D / 2**(k-1) filters
  computes both; its first half is the right child, which goes to the output, and its second half
  the left child, which feeds the next level. The branches of D=16, K=3 are 8, 4, 2 and 2 wide:

  >>> def layer(x, level, filters):  # Every output tells its level.
  ...   return jnp.full((1, filters), level)
  >>> print(binary_tree(jnp.zeros((1, 5)), 16, 3, layer)[0])
  [1 1 1 1 1 1 1 1 2 2 2 2 3 3 3 3]
  >>> binary_tree(jnp.zeros((1, 5)), 20, 3, layer)
  Traceback (most recent call last):
  ValueError: features=20: not divisible by 8 (2**tree_depth, tree_depth=3); use 16 or 24

  Args:
    x: input, `[batch, ..., channels]`.
    features: output channels D.
    tree_depth: levels K.
    layer: `layer(x, level, filters)`, the fused layer of a level, counted from 1.

  Returns:
    The output y, `[batch, ..., features]`.

  Raises:
    ValueError: `features` cannot be halved `tree_depth` times.

  Source:
    Equations 2 and 3.

  Departs:
    Equation 3 prints lefts and the last right, which would leave every other right child without
    a gradient; the prose under the equation and the authors' code agree with this function.
  """
  check_divisible(features, tree_depth)
  outputs = []
  for level in range(1, tree_depth + 1):
    x = layer(x, level, features >> (level - 1))
    if level < tree_depth:
      right, x = jnp.split(x, 2, axis=-1)
      outputs.append(right)
  return jnp.concatenate([*outputs, x], axis=-1) if outputs else x


class BitBlock(nn.Module):
  """Computes a binary tree of 3x3 convolutions, each followed by batch norm and ReLU.

  The input is `[batch, height, width, channels]`, the output
  `[batch, ceil(height / strides), ceil(width / strides), features]`.

  Attributes:
    features: output channels D, divisible by 2**tree_depth.
    tree_depth: levels K; with 1 the block is one plain convolution, batch norm and ReLU.
    conv: constructor of a convolution.
    norm: constructor of a batch norm with ReLU.
    strides: strides of the first level.

  Source:
    Section 3.2.
  """

  features: int
  tree_depth: int
  conv: ModuleDef
  norm: ModuleDef
  strides: int = 1

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Maps `[batch, height, width, channels]` to the output; raises ValueError as `binary_tree`."""

    def layer(x: jax.Array, level: int, filters: int) -> jax.Array:
      strides = self.strides if level == 1 else 1
      conv = self.conv(
        filters, strides=strides, init_features=filters // 2, name=f'level{level}_conv'
      )
      return self.norm(name=f'level{level}_norm')(conv(x), train=train)

    return binary_tree(x, self.features, self.tree_depth, layer)


class ConvenBlock(nn.Module):
  """Stacks K 3x3 convolutions of D filters, each followed by batch norm and ReLU.

  Attributes:
    features: output channels D.
    tree_depth: layers K.
    conv: constructor of a convolution.
    norm: constructor of a batch norm with ReLU.
    strides: strides of the first layer.

  Source:
    Section 3.1, equation 1.
  """

  features: int
  tree_depth: int
  conv: ModuleDef
  norm: ModuleDef
  strides: int = 1

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Maps `[batch, height, width, channels]` to `[batch, height / s, width / s, features]`."""
    for layer in range(1, self.tree_depth + 1):
      strides = self.strides if layer == 1 else 1
      x = self.conv(self.features, strides=strides, name=f'layer{layer}_conv')(x)
      x = self.norm(name=f'layer{layer}_norm')(x, train=train)
    return x


class PreActivationBlock(nn.Module):
  """Computes the Wide ResNet block: batch norm and ReLU before each of K convolutions.

  Where the shape changes, the shortcut is a 1x1 convolution that reads the same batch norm and
  ReLU as the branch.

  Attributes:
    features: output channels D.
    tree_depth: convolutions K of the branch.
    conv: constructor of a convolution.
    norm: constructor of a batch norm with ReLU.
    strides: strides of the first convolution and of the projection.
    shortcut: False for the plain network without shortcuts.

  Source:
    Table 1 (ConvenBlock with residual connection); Zagoruyko and Komadakis, 2016.
  """

  features: int
  tree_depth: int
  conv: ModuleDef
  norm: ModuleDef
  strides: int = 1
  shortcut: bool = True

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Maps `[batch, height, width, channels]` to `[batch, height / s, width / s, features]`."""
    changes_shape = x.shape[-1] != self.features or self.strides != 1
    branch = self.norm(name='layer1_norm')(x, train=train)
    if changes_shape and self.shortcut:
      x = self.conv(self.features, kernel_size=1, strides=self.strides, name='projection')(branch)
    branch = self.conv(self.features, strides=self.strides, name='layer1_conv')(branch)
    for layer in range(2, self.tree_depth + 1):
      branch = self.norm(name=f'layer{layer}_norm')(branch, train=train)
      branch = self.conv(self.features, name=f'layer{layer}_conv')(branch)
    return x + branch if self.shortcut else branch


class BasicBlock(nn.Module):
  """Computes the ILSVRC12 ResNets' block: two convolutions, the second ReLU after the addition.

  Attributes:
    features: output channels.
    conv: constructor of a convolution.
    norm: constructor of a batch norm with ReLU.
    strides: strides of the first convolution and of the projection.

  Source:
    He et al., 2016, with shortcuts of type B (1x1 projections where the shape changes).
  """

  features: int
  conv: ModuleDef
  norm: ModuleDef
  strides: int = 1

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """Maps `[batch, height, width, channels]` to `[batch, height / s, width / s, features]`."""
    branch = self.conv(self.features, strides=self.strides, name='layer1_conv')(x)
    branch = self.norm(name='layer1_norm')(branch, train=train)
    branch = self.conv(self.features, name='layer2_conv')(branch)
    branch = self.norm(relu=False, name='layer2_norm')(branch, train=train)
    if x.shape[-1] != self.features or self.strides != 1:
      x = self.conv(self.features, kernel_size=1, strides=self.strides, name='projection')(x)
      x = self.norm(relu=False, name='projection_norm')(x, train=train)
    return nn.relu(x + branch)
