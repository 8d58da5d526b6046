"""Makes the network that a configuration describes, and chooses what computes its layers."""

from __future__ import annotations

import flax.linen as nn
import jax
import ml_collections

from bitnet_jax import errors, models, onednn


def choose_kernels(config: ml_collections.ConfigDict) -> str:
  """What computes convolutions and batch norm: 'xla', 'onednn' or 'winograd'.

  Raises:
    ConfigError: oneDNN is asked for and cannot be had.
  """
  asked = config.model.kernels
  if asked == 'xla' or (asked == 'auto' and jax.default_backend() != 'cpu'):
    return 'xla'
  reason = f'it is for the CPU, and this is a {jax.default_backend()}'
  if jax.default_backend() == 'cpu':
    reason = onednn.unavailable()
  if reason and asked != 'auto':
    raise errors.ConfigError('config.model.kernels', asked, reason, 'use auto')
  if reason:
    return 'xla'
  # Winograd's method is for float32.
  return 'onednn' if asked == 'onednn' or config.model.dtype != 'float32' else 'winograd'


def make_model(config: ml_collections.ConfigDict, num_classes: int, axis_name: str) -> nn.Module:
  """The network of a configuration; `axis_name` is '' outside of a mapped function."""
  sizes = {field: config.model[field] for field in config.model if not field.startswith('batch_')}
  del sizes['kernels']
  return models.create_model(
    **sizes,
    num_classes=num_classes,
    batch_norm_group=config.model.batch_norm_group,
    batch_norm_momentum=config.model.batch_norm_momentum,
    batch_norm_epsilon=config.model.batch_norm_epsilon,
    axis_name=axis_name,
    kernels=choose_kernels(config),
  )
