"""Networks by name."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from bitnet_jax.models import bitnet, layers, resnet
from bitnet_jax.models.kernels import XLA, Kernels

_CIFAR = ('width', 'tree_depth', 'num_blocks')

# Name -> (module with its fixed fields, the sizes it takes).
MODELS: dict[str, tuple[Callable[..., nn.Module], tuple[str, ...]]] = {
  'bitnet': (bitnet.CifarBitNet, _CIFAR),
  'wide_resnet': (resnet.WideResNet, _CIFAR),
  'plainnet': (functools.partial(resnet.WideResNet, shortcut=False), _CIFAR),
  'bitnet26': (functools.partial(bitnet.ImagenetBitNet, bitnet.BITNET26_STAGES), ()),
  'bitnet34': (functools.partial(bitnet.ImagenetBitNet, bitnet.BITNET34_STAGES), ()),
  'resnet18b': (functools.partial(resnet.ResNetB, resnet.RESNET18_BLOCKS), ('width_factor',)),
  'resnet34b': (functools.partial(resnet.ResNetB, resnet.RESNET34_BLOCKS), ('width_factor',)),
}


def create_model(
  name: str,
  *,
  num_classes: int,
  width: int = 0,
  tree_depth: int = 0,
  num_blocks: int = 0,
  width_factor: float = 1.0,
  dtype: Any = jnp.float32,
  conv_init: str = 'fan_out',
  norm_scale_init: str = 'ones',
  batch_norm_group: int = 0,
  batch_norm_momentum: float = 0.9,
  batch_norm_epsilon: float = 1e-5,
  axis_name: str = '',
  kernels: Kernels = XLA,
) -> nn.Module:
  """Makes a network.

  Args:
    name: a key of `MODELS`.
    num_classes: logits.
    width: d of a CIFAR network; ignored by the ILSVRC12 ones, as the next two.
    tree_depth: k of a CIFAR network.
    num_blocks: n of a CIFAR network.
    width_factor: of `resnet18b` and `resnet34b`.
    dtype: of the computation: float32 or bfloat16. Parameters, statistics and logits are float32.
    conv_init: 'fan_out' or 'fan_in', see `layers.conv_init`.
    norm_scale_init: 'ones' or 'uniform'.
    batch_norm_group: examples that share statistics in training; 0 for the whole global batch.
    batch_norm_momentum: share of the running averages kept at a step.
    batch_norm_epsilon: added to the variance.
    axis_name: the axis that pmap maps over; '' outside of it.
    kernels: what computes convolutions and batch norm.

  Returns:
    A module: `model.apply(variables, images, train=...)` gives logits `[batch, num_classes]`.

  Raises:
    ValueError: no such network.
  """
  if name not in MODELS:
    raise ValueError(f'model {name!r} is not registered; use one of {", ".join(MODELS)}')
  make, sizes = MODELS[name]
  given = {
    'width': width,
    'tree_depth': tree_depth,
    'num_blocks': num_blocks,
    'width_factor': width_factor,
  }
  norm = functools.partial(
    layers.GroupedBatchNorm,
    group_size=batch_norm_group,
    momentum=batch_norm_momentum,
    epsilon=batch_norm_epsilon,
    axis_name=axis_name,
    scale_init=norm_scale_init,
    dtype=dtype,
    kernels=kernels,
  )
  return make(
    num_classes=num_classes,
    conv=functools.partial(layers.Conv, init_mode=conv_init, dtype=dtype, kernels=kernels),
    norm=norm,
    **{size: given[size] for size in sizes},
  )
