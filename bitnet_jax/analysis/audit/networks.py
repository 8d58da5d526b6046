"""Which network, counted how: the names that the tables, the counts and the runs share."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Network:
  """A network of the registry: its name and its sizes.

  Attributes:
    name: key of `models.MODELS`.
    width: d, as the next two only of CIFAR networks.
    tree_depth: k.
    num_blocks: n.
    width_factor: of the ILSVRC12 ResNets.
  """

  name: str
  width: int = 0
  tree_depth: int = 0
  num_blocks: int = 0
  width_factor: float = 1.0

  @property
  def is_cifar(self) -> bool:
    """Whether it takes 32x32 images."""
    return self.width > 0

  @property
  def classes(self) -> int:
    """Logits of the head whose size the paper prints: 10 (even for CIFAR-100) or 1000."""
    return 10 if self.is_cifar else 1000

  @property
  def trained(self) -> Convention:
    """What is counted of a network as it trains, with the head of its tables."""
    return Convention(self.classes)

  @property
  def image_size(self) -> int:
    """Side of the images that multiply-adds are counted for."""
    return 32 if self.is_cifar else 224

  def __str__(self) -> str:
    """The part of a row's key that names the network."""
    if self.is_cifar:
      return f'{self.name}-{self.width},{self.tree_depth},{self.num_blocks}'
    return self.name + ('' if self.width_factor == 1 else f'-x{self.width_factor:g}')


@dataclasses.dataclass(frozen=True)
class Convention:
  """What is counted.

  Attributes:
    classes: logits of the head.
    batch_norm: whether batch norm's scales and biases count as parameters.
    projection: kernel of the projections, 1 as trained.
  """

  classes: int
  batch_norm: bool = True
  projection: int = 1

  def __str__(self) -> str:
    norm = 'with' if self.batch_norm else 'without'
    side = self.projection
    return f'{self.classes} classes, {norm} batch norm, {side}x{side} projections'

  def differences(self, other: Convention) -> list[str]:
    """What this convention counts otherwise than another one."""
    return [
      mine
      for mine, theirs in zip(str(self).split(', '), str(other).split(', '), strict=True)
      if mine != theirs
    ]


def bitnet(width: int, tree_depth: int, num_blocks: int) -> Network:
  """BitNet (d, k, n)."""
  return Network('bitnet', width, tree_depth, num_blocks)


def wide_resnet(width: int, tree_depth: int, num_blocks: int) -> Network:
  """Wide ResNet (d, k, n)."""
  return Network('wide_resnet', width, tree_depth, num_blocks)


PLAINNET = Network('plainnet', 4, 2, 6)
BITNET26, BITNET34 = Network('bitnet26'), Network('bitnet34')
RESNET18, RESNET34 = Network('resnet18b'), Network('resnet34b')


def wider(network: Network, width_factor: float) -> Network:
  """An ILSVRC12 ResNet, widened."""
  return dataclasses.replace(network, width_factor=width_factor)
