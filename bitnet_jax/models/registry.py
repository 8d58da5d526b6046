"""Makes networks by their names, for `build` and for programs that have no configuration."""

from __future__ import annotations

import functools
import importlib
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from bitnet_jax.config.networks import NETWORKS
from bitnet_jax.models import layers
from bitnet_jax.models.kernels import XLA, Kernels


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
    name: a key of `config.networks.NETWORKS`.
    num_classes: number of logits.
    width: d of a CIFAR network; the ILSVRC12 networks ignore this and the next two.
    tree_depth: k of a CIFAR network.
    num_blocks: n of a CIFAR network.
    width_factor: factor of the width of `resnet18b` and `resnet34b`; the others ignore this.
    dtype: float32 or bfloat16, for the computation; parameters, statistics and logits are float32.
    conv_init: 'fan_out' or 'fan_in', as `layers.conv_init` defines them.
    norm_scale_init: 'ones' or 'uniform' in [0, 1).
    batch_norm_group: examples that share statistics in training; 0 for the whole global batch.
    batch_norm_momentum: share of the running averages that a step keeps.
    batch_norm_epsilon: constant added to the variance.
    axis_name: the axis that pmap maps over; '' outside of pmap.
    kernels: computes convolutions and batch norm.

  Returns:
    A module: `model.apply(variables, images, train=...)` gives logits `[batch, num_classes]`.

  Raises:
    ValueError: `name` is not a key of `NETWORKS`.
  """
  if name not in NETWORKS:
    raise ValueError(f'model {name!r} is not registered; use one of {", ".join(NETWORKS)}')
  sizes = {
    'width': width,
    'tree_depth': tree_depth,
    'num_blocks': num_blocks,
    'width_factor': width_factor,
  }
  conv = functools.partial(layers.Conv, init_mode=conv_init, dtype=dtype, kernels=kernels)
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
  taken = {size: sizes[size] for size in NETWORKS[name].sizes}
  return _maker(NETWORKS[name].maker)(num_classes=num_classes, conv=conv, norm=norm, **taken)


def _maker(place: str) -> Any:
  module, _, attribute = place.rpartition('.')
  return getattr(importlib.import_module(f'bitnet_jax.models.{module}'), attribute)
