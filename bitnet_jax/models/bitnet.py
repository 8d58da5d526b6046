"""Defines the BitNets: the CIFAR family (d, k, n) of Table 1, the ILSVRC12 pair of Table 3."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax

from bitnet_jax.models import blocks, layers

ModuleDef = Any

# Table 3: (width, tree depth) of the blocks of stages 1 to 4; later stages begin with stride 2.
BITNET26_STAGES = (
  ((128, 3), (128, 3)),
  ((192, 3), (256, 3)),
  ((384, 3), (384, 3)),
  ((512, 3), (768, 3)),
)
BITNET34_STAGES = (
  ((256, 4), (256, 4)),
  ((384, 4), (384, 4)),
  ((512, 4), (512, 4)),
  ((768, 4), (768, 4)),
)


class CifarBitNet(nn.Module):
  """Classifies small images with a 3x3 stem and three stages of BitBlocks.

  The input is `[batch, height, width, channels]`, the output logits `[batch, num_classes]`,
  float32. At 32x32 pixels the stages compute on 32, 16 and 8 pixels a side.

  Attributes:
    width: d; the stages are 16d, 32d and 64d wide.
    tree_depth: k of every block.
    num_blocks: n, blocks of a stage.
    num_classes: number of logits.
    conv: constructor of a convolution.
    norm: constructor of a batch norm with ReLU.
    head: constructor of the classifier.

  Source:
    Table 1.
  """

  width: int
  tree_depth: int
  num_blocks: int
  num_classes: int
  conv: ModuleDef
  norm: ModuleDef
  head: ModuleDef = layers.Head

  @property
  def depth(self) -> int:
    """Returns the weighted layers on the longest path: stem, levels of the blocks, head."""
    return 2 + 3 * self.tree_depth * self.num_blocks

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """Maps images to logits; `train` says whether batch norm uses the batch's statistics."""
    x = self.norm(name='stem_norm')(self.conv(16, name='stem_conv')(x), train=train)
    for stage in range(1, 4):
      features = 16 * self.width * 2 ** (stage - 1)
      for index in range(1, self.num_blocks + 1):
        x = blocks.BitBlock(
          features,
          self.tree_depth,
          conv=self.conv,
          norm=self.norm,
          strides=2 if stage > 1 and index == 1 else 1,
          name=f'stage{stage}_block{index}',
        )(x, train=train)
    return self.head(self.num_classes, name='head')(x)


class ImagenetBitNet(nn.Module):
  """Classifies large images with a 7x7 stem, max pooling and four stages of BitBlocks.

  The input is `[batch, height, width, 3]`, the output logits `[batch, num_classes]`, float32.

  Attributes:
    stages: (width, tree depth) of every block, by stage.
    num_classes: number of logits.
    conv: constructor of a convolution.
    norm: constructor of a batch norm with ReLU.
    head: constructor of the classifier.

  Source:
    Table 3.
  """

  stages: tuple[tuple[tuple[int, int], ...], ...]
  num_classes: int
  conv: ModuleDef
  norm: ModuleDef
  head: ModuleDef = layers.Head

  @property
  def depth(self) -> int:
    """Returns the weighted layers on the longest path: stem, levels of the blocks, head."""
    return 2 + sum(tree_depth for stage in self.stages for _, tree_depth in stage)

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """Maps images to logits; `train` says whether batch norm uses the batch's statistics."""
    x = self.conv(64, kernel_size=7, strides=2, name='stem_conv')(x)
    x = layers.max_pool(self.norm(name='stem_norm')(x, train=train))
    for stage, stage_blocks in enumerate(self.stages, start=1):
      for index, (features, tree_depth) in enumerate(stage_blocks, start=1):
        x = blocks.BitBlock(
          features,
          tree_depth,
          conv=self.conv,
          norm=self.norm,
          strides=2 if stage > 1 and index == 1 else 1,
          name=f'stage{stage}_block{index}',
        )(x, train=train)
    return self.head(self.num_classes, name='head')(x)


BitNet26 = functools.partial(ImagenetBitNet, BITNET26_STAGES)
BitNet34 = functools.partial(ImagenetBitNet, BITNET34_STAGES)
