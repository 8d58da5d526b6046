"""Defines the baselines: Wide ResNets and plain networks for CIFAR, ResNets B for ILSVRC12."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax

from bitnet_jax.models import blocks, layers

ModuleDef = Any

RESNET18_BLOCKS = (2, 2, 2, 2)
RESNET34_BLOCKS = (3, 4, 6, 3)


class WideResNet(nn.Module):
  """Classifies small images with a pre-activation Wide ResNet, or the same without shortcuts.

  The paper names it by (d, k, n): WRN-40-4 of Zagoruyko and Komadakis is (4, 2, 6), the paper's
  "wide resnet-38". The input is `[batch, height, width, channels]`, the output logits
  `[batch, num_classes]`, float32.

  Attributes:
    width: d; the stages are 16d, 32d and 64d wide.
    tree_depth: k, convolutions of a block (2 in every baseline of the paper).
    num_blocks: n, blocks of a stage.
    num_classes: number of logits.
    conv: constructor of a convolution.
    norm: constructor of a batch norm with ReLU.
    shortcut: False for plainnet.
    head: constructor of the classifier.

  Source:
    Table 1; plainnet-38 of section 4.4.
  """

  width: int
  tree_depth: int
  num_blocks: int
  num_classes: int
  conv: ModuleDef
  norm: ModuleDef
  shortcut: bool = True
  head: ModuleDef = layers.Head

  @property
  def depth(self) -> int:
    """Returns the weighted layers on the longest path: stem, convolutions of the branches, head."""
    return 2 + 3 * self.tree_depth * self.num_blocks

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """Maps images to logits; `train` says whether batch norm uses the batch's statistics."""
    x = self.conv(16, name='stem_conv')(x)
    for stage in range(1, 4):
      features = 16 * self.width * 2 ** (stage - 1)
      for index in range(1, self.num_blocks + 1):
        x = blocks.PreActivationBlock(
          features,
          self.tree_depth,
          conv=self.conv,
          norm=self.norm,
          strides=2 if stage > 1 and index == 1 else 1,
          shortcut=self.shortcut,
          name=f'stage{stage}_block{index}',
        )(x, train=train)
    x = self.norm(name='final_norm')(x, train=train)
    return self.head(self.num_classes, name='head')(x)


class ResNetB(nn.Module):
  """Classifies large images with basic blocks and 1x1 projections (type B), widened by a factor.

  The input is `[batch, height, width, 3]`, the output logits `[batch, num_classes]`, float32.

  Attributes:
    stage_blocks: number of blocks of each stage.
    num_classes: number of logits.
    conv: constructor of a convolution.
    norm: constructor of a batch norm with ReLU.
    width_factor: factor of 64, 128, 256 and 512 features; the stem keeps its 64. The labels "x2"
      and "x3" of Table 4 are the widths 1.5 and 2.0 of the Wide ResNet paper.
    head: constructor of the classifier.

  Source:
    Table 4; He et al., 2016.
  """

  stage_blocks: tuple[int, ...]
  num_classes: int
  conv: ModuleDef
  norm: ModuleDef
  width_factor: float = 1.0
  head: ModuleDef = layers.Head

  @property
  def depth(self) -> int:
    """Returns the weighted layers on the longest path: stem, two for a block, head."""
    return 2 + 2 * sum(self.stage_blocks)

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    """Maps images to logits; `train` says whether batch norm uses the batch's statistics."""
    x = self.conv(64, kernel_size=7, strides=2, name='stem_conv')(x)
    x = layers.max_pool(self.norm(name='stem_norm')(x, train=train))
    for stage, num_blocks in enumerate(self.stage_blocks, start=1):
      features = int(64 * self.width_factor * 2 ** (stage - 1))
      for index in range(1, num_blocks + 1):
        x = blocks.BasicBlock(
          features,
          conv=self.conv,
          norm=self.norm,
          strides=2 if stage > 1 and index == 1 else 1,
          name=f'stage{stage}_block{index}',
        )(x, train=train)
    return self.head(self.num_classes, name='head')(x)


PlainNet = functools.partial(WideResNet, shortcut=False)
ResNet18B = functools.partial(ResNetB, RESNET18_BLOCKS)
ResNet34B = functools.partial(ResNetB, RESNET34_BLOCKS)
