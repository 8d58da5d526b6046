"""Makes the network that a configuration describes, and chooses what computes its layers.

No other file outside of `onednn/` calls oneDNN. Without that folder, and the three lines here that
contain `make_kernels` or `unavailable`, XLA's kernels compute everything.
"""

from __future__ import annotations

import flax.linen as nn
import jax
import ml_collections

from bitnet_jax import errors
from bitnet_jax.models import registry
from bitnet_jax.models.kernels import XLA, Kernels
from bitnet_jax.onednn import make_kernels, unavailable


def choose_kernels(asked: str, dtype: str) -> Kernels:
  """Returns the kernels that compute convolutions and batch norm.

  Args:
    asked: `config.model.kernels`: 'auto', 'xla', 'onednn' or 'winograd'.
    dtype: `config.model.dtype`.

  Raises:
    ConfigError: the requested kernels do not run here.
  """
  backend = jax.default_backend()
  if asked == 'xla' or (asked == 'auto' and backend != 'cpu'):
    return XLA
  reason = 'no kernels but those of XLA are installed'
  if backend != 'cpu':
    reason = f'they are for the CPU, and this is a {backend}'
  elif not (reason := unavailable()):
    return make_kernels(asked, dtype, XLA)
  if asked == 'auto':
    return XLA
  raise errors.ConfigError('config.model.kernels', asked, reason, 'use auto')


def make_model(
  config: ml_collections.ConfigDict,
  num_classes: int,
  axis_name: str,
  kernels: Kernels | None = None,
) -> nn.Module:
  """Makes the network of a configuration.

  Args:
    config: validated.
    num_classes: number of logits.
    axis_name: the axis that pmap maps over; '' outside of pmap.
    kernels: computes the layers; None for `choose_kernels`.

  Raises:
    ConfigError: `choose_kernels` raised.
  """
  sizes = config.model.to_dict()
  asked = sizes.pop('kernels')
  return registry.create_model(
    **sizes,
    num_classes=num_classes,
    axis_name=axis_name,
    kernels=kernels or choose_kernels(asked, sizes['dtype']),
  )
