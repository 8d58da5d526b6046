"""Names networks and ways of counting for the tables, the counts and the runs."""

from __future__ import annotations

import dataclasses

from bitnet_jax.config.networks import NETWORKS


@dataclasses.dataclass(frozen=True)
class Network:
  """Names a network of the registry and its sizes.

  Attributes:
    name: a key of `config.networks.NETWORKS`.
    width: d; like `tree_depth` and `num_blocks`, 0 for an ILSVRC12 network.
    tree_depth: k.
    num_blocks: n.
    width_factor: what the widths of an ILSVRC12 ResNet are multiplied by.
  """

  name: str
  width: int = 0
  tree_depth: int = 0
  num_blocks: int = 0
  width_factor: float = 1.0

  @property
  def is_cifar(self) -> bool:
    """Returns whether the network takes 32x32 images."""
    return NETWORKS[self.name].is_cifar

  @property
  def classes(self) -> int:
    """Returns the logits of the head that the paper counts: 10 (even for CIFAR-100) or 1000."""
    return NETWORKS[self.name].num_classes

  @property
  def image_size(self) -> int:
    """Returns the side of the images that multiply-adds are counted for, in pixels."""
    return NETWORKS[self.name].image_size

  @property
  def trained(self) -> Convention:
    """Returns the convention that counts the network as it trains, with the head of its tables."""
    return Convention(self.classes)

  def __str__(self) -> str:
    if self.is_cifar:
      return f'{self.name}-{self.width},{self.tree_depth},{self.num_blocks}'
    return self.name + ('' if self.width_factor == 1 else f'-x{self.width_factor:g}')


@dataclasses.dataclass(frozen=True)
class Convention:
  """Says what a count includes.

  Attributes:
    classes: logits of the head.
    batch_norm: whether the scales and biases of batch norm count as parameters.
    projection: kernel size of the projections; the networks train with 1.
  """

  classes: int
  batch_norm: bool = True
  projection: int = 1

  def __str__(self) -> str:
    norm = 'with' if self.batch_norm else 'without'
    side = self.projection
    return f'{self.classes} classes, {norm} batch norm, {side}x{side} projections'

  def differences(self, other: Convention) -> list[str]:
    """Returns the parts of this convention, in words, that differ from another one's."""
    others = str(other).split(', ')
    return [part for part in str(self).split(', ') if part not in others]


def bitnet(width: int, tree_depth: int, num_blocks: int) -> Network:
  """Returns BitNet (d, k, n)."""
  return Network('bitnet', width, tree_depth, num_blocks)


def wide_resnet(width: int, tree_depth: int, num_blocks: int) -> Network:
  """Returns Wide ResNet (d, k, n)."""
  return Network('wide_resnet', width, tree_depth, num_blocks)


PLAINNET = Network('plainnet', 4, 2, 6)
BITNET26, BITNET34 = Network('bitnet26'), Network('bitnet34')
RESNET18, RESNET34 = Network('resnet18b'), Network('resnet34b')


def wider(network: Network, width_factor: float) -> Network:
  """Returns an ILSVRC12 ResNet with its widths multiplied by a factor."""
  return dataclasses.replace(network, width_factor=width_factor)
