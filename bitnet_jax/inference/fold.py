"""Networks for use alone: batch norm with its running statistics folded into the convolutions."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from bitnet_jax.models import bitnet, layers, resnet

Tree = Any


class FoldedConv(layers.Conv):
  """A convolution with the bias, and the ReLU, of the batch norm that followed it, by XLA.

  Attributes:
    relu: whether a ReLU follows.
  """

  relu: bool = False

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Convolves `x`, `[batch, height, width, in_features]`."""
    shape = (self.kernel_size, self.kernel_size, x.shape[-1], self.features)
    kernel = self.parameter('kernel', nn.initializers.zeros, shape)
    bias = self.parameter('bias', nn.initializers.zeros, shape[-1:])
    y = layers.convolve(x.astype(self.dtype), kernel, self.strides) + bias.astype(self.dtype)
    return nn.relu(y) if self.relu else y


class FoldedNorm(nn.Module):
  """What is left of a batch norm that was folded away: its ReLU, if the convolution has it not.

  Attributes:
    relu: whether a ReLU follows.
    done: whether the convolution does it.
  """

  relu: bool = True
  done: bool = False

  def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
    """`x`, `[batch, ..., features]`, or its ReLU; raises ValueError in training."""
    if train:
      raise ValueError('a folded network does not train; fold it anew after training')
    return nn.relu(x) if self.relu and not self.done else x


def fold(model: nn.Module, variables: Tree) -> tuple[nn.Module, Tree]:
  """The same function of images, in evaluation, with fewer operations.

  Args:
    model: of `registry.create_model`.
    variables: 'params' and 'batch_stats'.

  Returns:
    A network and its variables. Pre-activation networks, in which no batch norm follows a
    convolution alone, are given back as they are.
  """
  if isinstance(model, bitnet.CifarBitNet | bitnet.ImagenetBitNet):
    relu = True  # Each convolution is followed by a batch norm with a ReLU.
  elif isinstance(model, resnet.ResNetB):
    relu = False
  else:
    return model, variables
  conv, norm = model.conv.keywords, model.norm.keywords
  params = _fold(variables['params'], variables['batch_stats'], norm['epsilon'])
  folded_conv = functools.partial(FoldedConv, relu=relu, dtype=conv['dtype'])
  folded_norm = functools.partial(FoldedNorm, done=relu)
  return model.clone(conv=folded_conv, norm=folded_norm), {'params': params}


def _fold(params: Tree, statistics: Tree, epsilon: float) -> Tree:
  """`level1_norm` goes into `level1_conv`, `projection_norm` into `projection`."""
  folded = {}
  for name, module in params.items():
    norm = f'{name.removesuffix("_conv")}_norm'
    if name.endswith('_norm'):
      continue
    if norm in params:
      scale, mean = params[norm]['scale'], statistics[norm]['mean']
      multiplier = np.asarray(scale / np.sqrt(statistics[norm]['var'] + epsilon), np.float32)
      bias = params[norm]['bias'] - mean * multiplier
      folded[name] = {'kernel': module['kernel'] * multiplier, 'bias': bias}
    elif 'kernel' in module:
      folded[name] = module
    else:
      folded[name] = _fold(module, statistics[name], epsilon)
  return folded
