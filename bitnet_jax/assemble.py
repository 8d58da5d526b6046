"""From a configuration to what it describes: data, network, optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import flax.linen as nn
import jax
import ml_collections
import optax

from bitnet_jax import cores, errors, models, onednn, optim
from bitnet_jax.data import augment
from bitnet_jax.plan import Plan

if TYPE_CHECKING:
  from bitnet_jax.data import arrays, sources

# A split that is resident lies on every device: 2 GiB holds any small set with room to spare.
MAX_RESIDENT_BYTES = 2 * 2**30
# A second of reading at most: sets up to this size are compared with their hashes at every start.
ALWAYS_HASHED_BYTES = 2**30


def open_split(
  config: ml_collections.ConfigDict, split: str, *, stop: Callable[[], bool] = lambda: False
) -> sources.Source:
  """Opens a split of the configured data set.

  Args:
    config: validated.
    split: as `data.train_split`.
    stop: ends the comparison with the manifest early; the caller then ends too.

  Raises:
    DataError: it is not prepared, empty, damaged, or has not the channels that `data.mean` is
      given for.
  """
  from bitnet_jax.data import sources  # What only trains a network in memory needs none of them.

  data = config.data
  hash_bytes = math.inf if data.verify else ALWAYS_HASHED_BYTES
  source = sources.open_source(data.name, split, data.dir, hash_bytes=hash_bytes, stop=stop)
  if source.channels != len(data.mean):
    raise errors.ConfigError(
      'config.data.mean',
      data.mean,
      f'{data.name} has {source.channels} channel(s)',
      'give one value for each',
    )
  return source


def load_split(config: ml_collections.ConfigDict, source: sources.Source) -> arrays.Arrays:
  """Decodes what `open_split` opened into memory.

  Raises:
    DataError: it cannot be read, or is too large.
  """
  from bitnet_jax.data import arrays

  return arrays.load_arrays(
    source,
    config.data.image_size,
    workers=cores.available(),
    max_bytes=MAX_RESIDENT_BYTES,
  )


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


def make_optimizer(
  config: ml_collections.ConfigDict, plan: Plan
) -> tuple[optax.GradientTransformation, optax.Schedule]:
  """The optax chain of a configuration and its learning rate by step."""
  optim_config = config.optim
  schedule = optim.make_schedule(
    schedule=optim_config.schedule,
    learning_rate=optim_config.learning_rate,
    drop_epochs=optim_config.drop_epochs,
    drop_factor=optim_config.drop_factor,
    warmup_epochs=optim_config.warmup_epochs,
    steps_per_epoch=plan.steps_per_epoch,
    total_steps=plan.total_steps,
  )
  resets = optim_config.drop_epochs if optim_config.reset_momentum_at_drop else ()
  optimizer = optim.make_optimizer(
    schedule,
    momentum=optim_config.momentum,
    nesterov=optim_config.nesterov,
    weight_decay=optim_config.weight_decay,
    reset_momentum_steps=optim.drop_steps(resets, plan.steps_per_epoch),
  )
  return optimizer, schedule


def make_augment(config: ml_collections.ConfigDict) -> Callable[..., jax.Array]:
  """The augmentation of a configuration, a `steps.AugmentBatch` with the run's seed bound in."""
  transform = augment.make_train_augment(
    mean=config.data.mean, std=config.data.std, **config.augment
  )

  def augment_batch(images: jax.Array, step: jax.Array, positions: jax.Array) -> jax.Array:
    keys = augment.example_keys(jax.random.key(config.seed), step, positions)
    return transform(images, keys)

  return augment_batch
