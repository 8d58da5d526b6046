"""Lists the networks that `config.model.name` can name; one entry is all that a network needs.

This file imports no network, because the configuration is read before JAX is loaded:
`models.registry` makes what an entry names.
"""

from __future__ import annotations

import dataclasses

_CIFAR_SIZES = ('width', 'tree_depth', 'num_blocks')


@dataclasses.dataclass(frozen=True)
class NetworkEntry:
  """Where a network is defined, and what it is told.

  Attributes:
    maker: 'MODULE.NAME' below `bitnet_jax.models`: a module class, or a function that gives one. It
      is called with `num_classes`, `conv`, `norm` and the sizes.
    sizes: fields of `config.model` that it takes, see `fields`.
    image_size: side of the images that its size and cost are stated for, in pixels.
    num_classes: logits of the head that its size is stated for.
  """

  maker: str
  sizes: tuple[str, ...] = _CIFAR_SIZES
  image_size: int = 32
  num_classes: int = 10

  @property
  def is_cifar(self) -> bool:
    """Whether the network is one for small images, with sizes (d, k, n)."""
    return self.sizes == _CIFAR_SIZES


def _imagenet(maker: str, *sizes: str) -> NetworkEntry:
  return NetworkEntry(maker, sizes, image_size=224, num_classes=1000)


NETWORKS = {
  'bitnet': NetworkEntry('bitnet.CifarBitNet'),
  'wide_resnet': NetworkEntry('resnet.WideResNet'),
  'plainnet': NetworkEntry('resnet.PlainNet'),
  'bitnet26': _imagenet('bitnet.BitNet26'),
  'bitnet34': _imagenet('bitnet.BitNet34'),
  'resnet18b': _imagenet('resnet.ResNet18B', 'width_factor'),
  'resnet34b': _imagenet('resnet.ResNet34B', 'width_factor'),
}
