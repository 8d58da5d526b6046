"""Defines the networks in PyTorch, written to be fast, for side-by-side benchmarks.

The left and right children of a tree level are one convolution, as in `bitnet_jax.models`, and
modules have the same names, so that weights carry over by name. This file imports PyTorch alone:
the benchmark may run the file with another Python than the one that runs JAX.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
  """Returns a convolution without bias, padded by half its kernel."""
  return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


class BitBlock(nn.Module):
  """Computes the binary tree of `bitnet_jax.models.blocks.BitBlock`."""

  def __init__(self, inputs: int, features: int, tree_depth: int, stride: int):
    super().__init__()
    self.tree_depth = tree_depth
    for level in range(1, tree_depth + 1):
      filters = features >> (level - 1)
      self.add_module(f'level{level}_conv', conv(inputs, filters, stride=stride))
      self.add_module(f'level{level}_norm', nn.BatchNorm2d(filters))
      inputs, stride = filters // 2, 1

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Maps `[batch, channels, height, width]` to the concatenated children."""
    outputs = []
    for level in range(1, self.tree_depth + 1):
      x = getattr(self, f'level{level}_conv')(x)
      x = F.relu(getattr(self, f'level{level}_norm')(x), inplace=True)
      if level < self.tree_depth:
        right, x = x.chunk(2, 1)
        outputs.append(right)
    return torch.cat([*outputs, x], 1) if outputs else x


class PreActivationBlock(nn.Module):
  """Computes the block of the Wide ResNet, or, without its shortcut, of plainnet."""

  def __init__(self, inputs: int, features: int, tree_depth: int, stride: int, shortcut: bool):
    super().__init__()
    self.tree_depth, self.shortcut = tree_depth, shortcut
    self.layer1_norm: nn.Module
    self.layer1_conv: nn.Module
    self.projects = shortcut and (inputs != features or stride != 1)
    if self.projects:
      self.projection = conv(inputs, features, 1, stride)
    for layer in range(1, tree_depth + 1):
      self.add_module(f'layer{layer}_norm', nn.BatchNorm2d(inputs))
      self.add_module(f'layer{layer}_conv', conv(inputs, features, stride=stride))
      inputs, stride = features, 1

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Maps `[batch, channels, height, width]` to `[batch, features, ...]`."""
    branch = F.relu(self.layer1_norm(x))
    if self.projects:
      x = self.projection(branch)
    branch = self.layer1_conv(branch)
    for layer in range(2, self.tree_depth + 1):
      branch = F.relu(getattr(self, f'layer{layer}_norm')(branch), inplace=True)
      branch = getattr(self, f'layer{layer}_conv')(branch)
    return x + branch if self.shortcut else branch


class BasicBlock(nn.Module):
  """Computes the block of type B of the ILSVRC12 ResNets."""

  def __init__(self, inputs: int, features: int, stride: int):
    super().__init__()
    self.layer1_conv, self.layer1_norm = conv(inputs, features, 3, stride), nn.BatchNorm2d(features)
    self.layer2_conv, self.layer2_norm = conv(features, features), nn.BatchNorm2d(features)
    self.projects = inputs != features or stride != 1
    if self.projects:
      self.projection = conv(inputs, features, 1, stride)
      self.projection_norm = nn.BatchNorm2d(features)

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Maps `[batch, channels, height, width]` to `[batch, features, ...]`."""
    y = F.relu(self.layer1_norm(self.layer1_conv(x)), inplace=True)
    y = self.layer2_norm(self.layer2_conv(y))
    shortcut = self.projection_norm(self.projection(x)) if self.projects else x
    return F.relu(y + shortcut)


class TorchNetwork(nn.Module):
  """Computes stem, blocks, global average pooling and classifier."""

  def __init__(self, spec: dict):
    """Builds the network.

    Args:
      spec: 'blocks', a list of (name, kind, features, tree depth, stride); 'stem', (features,
        kernel); 'stem_norm', whether batch norm follows the stem; 'final_norm', whether batch norm
        precedes the pooling; 'channels' of the image; 'classes'.
    """
    super().__init__()
    inputs, kernel = spec['stem']
    self.large = kernel == 7
    self.stem_conv = conv(spec['channels'], inputs, kernel, 2 if self.large else 1)
    if spec['stem_norm']:
      self.stem_norm = nn.BatchNorm2d(inputs)
    self.block_names = []
    for name, kind, features, tree_depth, stride in spec['blocks']:
      if kind == 'bit':
        block: nn.Module = BitBlock(inputs, features, tree_depth, stride)
      elif kind == 'basic':
        block = BasicBlock(inputs, features, stride)
      else:
        block = PreActivationBlock(inputs, features, tree_depth, stride, kind == 'residual')
      self.add_module(name, block)
      self.block_names.append(name)
      inputs = features
    if spec['final_norm']:
      self.final_norm = nn.BatchNorm2d(inputs)
    self.head = nn.Linear(inputs, spec['classes'])

  def forward(self, x: torch.Tensor) -> torch.Tensor:
    """Maps `[batch, channels, height, width]` to logits `[batch, classes]`, float32."""
    x = self.stem_conv(x)
    if hasattr(self, 'stem_norm'):
      x = F.relu(self.stem_norm(x), inplace=True)
    if self.large:
      x = F.max_pool2d(x, 3, stride=2, padding=1)
    for name in self.block_names:
      x = getattr(self, name)(x)
    if hasattr(self, 'final_norm'):
      x = F.relu(self.final_norm(x), inplace=True)
    return F.linear(x.float().mean((2, 3)), self.head.weight, self.head.bias)
