"""Checks a configuration: names, types, ranges, and what fields demand of one another."""

from __future__ import annotations

import math
from typing import Any

import ml_collections

from bitnet_jax import errors
from bitnet_jax.config import defaults, fields, sizes
from bitnet_jax.config.datasets import DATASETS

_FIELDS = {field.name: field for field in fields.FIELDS}


def validate(config: ml_collections.ConfigDict) -> None:
  """Checks names, types, ranges and what fields demand of one another, without a device.

  Raises:
    ConfigError: the first fault found.
  """
  given = dict(defaults.flatten(config))
  for name, value in given.items():
    if name not in _FIELDS:
      raise errors.ConfigError(f'config.{name}', value, 'unknown field', defaults.suggestion(name))
    _check_field(_FIELDS[name], value)
  for name in _FIELDS:
    if name not in given:
      remedy = 'start from bitnet_jax.config.default_config()'
      raise errors.ConfigError(f'config.{name}', '', 'missing', remedy)
  _check_model(config)
  _check_optim(config)
  _check_data(config)


def validate_devices(config: ml_collections.ConfigDict, num_devices: int) -> None:
  """Checks that the batches and batch norm's group fit the devices.

  Raises:
    ConfigError: a batch does not divide, or a group does not fit.
  """
  for name in ('global_batch_size', 'eval.batch_size'):
    value = dict(defaults.flatten(config))[name]
    if value % num_devices:
      lower, upper = sizes.nearest_multiples(value, num_devices)
      problem = f'not divisible by {num_devices} devices'
      raise errors.ConfigError(f'config.{name}', value, problem, f'use {lower} or {upper}')
  group = config.model.batch_norm_group
  local = config.global_batch_size // num_devices
  if not batch_fits(config.global_batch_size, group, num_devices):
    raise errors.ConfigError(
      'config.model.batch_norm_group',
      group,
      f'does not fit {num_devices} device(s) with {local} examples each',
      f'use a divisor of {local}, or 0 for the whole batch',
    )


def batch_fits(batch_size: int, group: int, num_devices: int) -> bool:
  """Returns whether a batch divides among the devices, and batch norm's groups fit them."""
  local, rest = divmod(batch_size, num_devices)
  return bool(local) and not rest and sizes.group_layout(local, group, num_devices) is not None


def _check_field(field: fields.Field, value: Any) -> None:
  name, kind = f'config.{field.name}', type(field.default)
  if kind is float and type(value) is int and abs(value) < 2**53:
    value = float(value)
  if type(value) is not kind:
    raise errors.ConfigError(
      name, value, f'not of type {kind.__name__}', f'write it like {field.default!r}'
    )
  if field.choices and value not in field.choices:
    raise errors.ConfigError(
      name, value, 'not a choice', f'use one of {", ".join(map(str, field.choices))}'
    )
  for element in value if kind is tuple else (value,):
    _check_element(field, name, value, element)


def _check_element(field: fields.Field, name: str, value: Any, element: Any) -> None:
  if isinstance(element, str | bool):
    if isinstance(field.default, tuple):
      raise errors.ConfigError(name, value, 'holds no number', f'write it like {field.default!r}')
    return
  is_finite = isinstance(element, int) or (isinstance(element, float) and math.isfinite(element))
  if not is_finite:
    raise errors.ConfigError(name, value, 'not a finite number', f'write it like {field.default!r}')
  if isinstance(field.default, tuple) and type(field.default[0]) is int and type(element) is float:
    raise errors.ConfigError(name, value, 'not whole numbers', f'write it like {field.default!r}')
  if not field.low <= element <= field.high:
    raise errors.ConfigError(
      name, value, 'out of range', f'use a value from {field.low:.15g} to {field.high:.15g}'
    )


def _check_model(config: ml_collections.ConfigDict) -> None:
  model = config.model
  if model.name == 'bitnet' and not sizes.tree_fits(16 * model.width, model.tree_depth):
    lower, upper = sizes.nearest_multiples(model.width, max(2**model.tree_depth // 16, 1))
    raise errors.ConfigError(
      'config.model.width',
      model.width,
      f'16*width={16 * model.width} not divisible by 2**tree_depth={2**model.tree_depth}',
      f'use width {lower} or {upper}, or a smaller tree_depth',
    )


def _check_optim(config: ml_collections.ConfigDict) -> None:
  drops = config.optim.drop_epochs
  if list(drops) != sorted(set(drops)):
    raise errors.ConfigError(
      'config.optim.drop_epochs', drops, 'not rising', 'list each epoch once, in order'
    )


def _check_data(config: ml_collections.ConfigDict) -> None:
  data, dataset = config.data, DATASETS[config.data.name]
  if len(data.mean) != len(data.std) or len(data.mean) not in (1, 3):
    raise errors.ConfigError(
      'config.data.std', data.std, f'does not match data.mean={data.mean}', 'give 1 or 3 of each'
    )
  if dataset.needs_dir and not data.dir:
    raise errors.ConfigError(
      'config.data.dir', repr(data.dir), f'a {data.name} has no default place', 'name its path'
    )
  if not dataset.image_size and not data.image_size:
    raise errors.ConfigError(
      'config.data.image_size', 0, f'images of {data.name} vary in size', 'name a side in pixels'
    )
  _check_stream(config)
  augment = config.augment
  for name in ('jitter', 'lighting'):
    if augment[name] and len(data.mean) == 1:
      raise errors.ConfigError(
        f'config.augment.{name}', augment[name], 'gray images have no color', 'set it to 0'
      )


def _check_stream(config: ml_collections.ConfigDict) -> None:
  data, resize = config.data, config.eval.resize
  for name in ('crop_area', 'crop_aspect'):
    if len(data[name]) != 2 or data[name][0] > data[name][1]:
      raise errors.ConfigError(
        f'config.data.{name}', data[name], 'not a range', 'give the least and the greatest'
      )
  if resize and resize < data.image_size:
    raise errors.ConfigError(
      'config.eval.resize', resize, f'less than data.image_size={data.image_size}', 'raise it'
    )
  if data.pipeline == 'stream':
    if config.steps_per_execution > 1:
      asked, problem = config.steps_per_execution, 'the stream hands over one step at a time'
      raise errors.ConfigError('config.steps_per_execution', asked, problem, 'set it to 0')
    return
  for name, wants_stream in (
    ('config.data.train_crop', data.train_crop == 'random_area'),
    ('config.data.name', DATASETS[data.name].must_stream),
    ('config.data.on_error', data.on_error == 'skip'),
    ('config.eval.resize', bool(resize)),
  ):
    if wants_stream:
      value = dict(defaults.flatten({'config': config}))[name]
      remedy = 'set config.data.pipeline=stream'
      raise errors.ConfigError(name, value, 'not for the resident way', remedy)
