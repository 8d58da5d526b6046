"""A network of a newcomer: blocks with a stock layer, and a convolution without norm and ReLU."""

from typing import Any

import flax.linen as nn
import jax

from bitnet_jax.models import layers


class ToyBlock(nn.Module):
  """A convolution alone, a stock `nn.Dense` over the channels, then a convolution with norm."""

  features: int
  conv: Any
  norm: Any
  strides: int = 1

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    x = self.conv(self.features, strides=self.strides, name='plain_conv')(x)
    x = nn.gelu(nn.Dense(self.features, name='mix')(x))
    return self.norm(name='norm')(self.conv(self.features, name='conv')(x), train=train)


class ToyNetwork(nn.Module):
  """Two blocks; there is no layer `stem_conv`."""

  width: int
  num_classes: int
  conv: Any
  norm: Any
  head: Any = layers.Head

  @property
  def depth(self) -> int:
    """Weighted layers on the longest path: three of each block, and the head."""
    return 2 * 3 + 1

  @nn.compact
  def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
    for index in (1, 2):
      block = ToyBlock(8 * self.width, self.conv, self.norm, strides=2, name=f'block{index}')
      x = block(x, train=train)
    return self.head(self.num_classes, name='head')(x)
