"""Resumes a run from a checkpoint: checks that it is the same run, and warns of what changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import ml_collections
import numpy as np

from bitnet_jax import errors
from bitnet_jax.checkpoints import pretrained
from bitnet_jax.checkpoints.manager import Checkpoints
from bitnet_jax.config import defaults, fields
from bitnet_jax.distributed import cluster
from bitnet_jax.runtime import output
from bitnet_jax.training import optim, steps
from bitnet_jax.training.plan import Plan
from bitnet_jax.training.setup import Setup

# What --allow_config_change calls another manifest of the training data.
DATA_CHANGE, _MANIFEST = 'data.manifest', 'manifest'
# What the bits depend on besides the configuration.
ENVIRONMENT = (
  'python',
  'packages',
  'settings',
  'kernels',
  'repeated',
  'device_kind',
  'num_devices',
  'cores',
  'num_processes',
)
# Settings of JAX without which the augmentation of an example is not what it was.
_OF_DRAWS = ('jax_default_prng_impl', 'jax_threefry_partitionable')
# What checkpoints that do not say so were made with.
_UNRECORDED = {'repeated': False}


@dataclasses.dataclass(frozen=True)
class Progress:
  """Says how far a run had come when it was saved.

  Attributes:
    seconds: of training.
    evaluated: whether the evaluation that was due at this step was done; 'settled' in a record.
  """

  seconds: float = 0.0
  evaluated: bool = True


def make_record(
  config: ml_collections.ConfigDict,
  environment: dict[str, Any],
  data: dict[str, Any],
  progress: Progress,
) -> dict[str, Any]:
  """Returns what a checkpoint says about its run, as a JSON object."""
  return {
    'config': config.to_dict(),
    'environment': environment,
    'data': data,
    'seconds': progress.seconds,
    'settled': progress.evaluated,
  }


def restore(
  job: Setup,
  checkpoints: Checkpoints | None,
  state: steps.TrainState,
  allowed: Sequence[str],
) -> tuple[steps.TrainState, Progress]:
  """Returns the newest checkpoint's state and progress, the same in all processes.

  Where there is none: `state`, with what `init_from` names in it, and no progress.

  Args:
    job: data, model, optimizer, plan and control; the data are loaded.
    checkpoints: of the work directory; None in all processes but the primary one.
    state: template, and what is given back where there is no checkpoint.
    allowed: fields that may differ, besides those that always may.

  Raises:
    CheckpointError: it cannot be read, or belongs to a run that trained otherwise.
    ConfigError: the run has gone further than it is now said to go.
  """
  config, progress = job.config, Progress()
  step = checkpoints.latest_step() if checkpoints else None
  if checkpoints and step is not None:
    record = checkpoints.read_record(step)
    check_config(config, record['config'], step, allowed)
    check_data(job.identity, record['data'], step, allowed)
    warn_of_changes(job.environment, record['environment'])
    state = checkpoints.restore(step, state)
    progress = Progress(record['seconds'], record['settled'])
  elif checkpoints and config.init_from:
    params, batch_stats = pretrained.transplant(state.params, state.batch_stats, config.init_from)
    state = dataclasses.replace(state, params=params, batch_stats=batch_stats)
  state, evaluated = cluster.broadcast((state, np.bool_(progress.evaluated)))
  check_length(config, job.plan, int(state.step))
  return state, dataclasses.replace(progress, evaluated=bool(evaluated))


def shared_fields(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Returns the fields that must be the same in all processes of a run, by name."""
  return {
    f'config.{name}': value
    for name, value in defaults.flatten(config)
    if defaults.role_of(name) != fields.PROCESS
  }


def check_length(config: ml_collections.ConfigDict, plan: Plan, step: int) -> None:
  """Raises ConfigError where the run went further than it is now said to go."""
  if step > plan.total_steps:
    raise errors.ConfigError(
      'config.num_epochs',
      config.num_epochs,
      f'the run has taken {step} steps already, these are {plan.total_steps}',
      f'use {step / plan.steps_per_epoch:g} or more',
    )


def check_config(
  config: ml_collections.ConfigDict,
  saved: dict[str, Any],
  step: int,
  allowed_changes: Sequence[str],
) -> None:
  """Raises CheckpointError for the first field that changed and may not.

  A field that is younger than the checkpoint had its default when that was trained.
  """
  before = dict(defaults.flatten(saved))
  for name, value in defaults.flatten(config):
    old = before.get(name, defaults.default_of(name))
    old = tuple(old) if isinstance(old, list) else old
    free = defaults.role_of(name) in (fields.RUNTIME, fields.PROCESS)
    if name == 'num_epochs' and optim.depends_on_length(config.optim.schedule):
      free = False
    network = defaults.role_of(name) == fields.NETWORK
    if old == value or free or (name in allowed_changes and not network):
      continue
    remedy = f'restore {old}, or take a new --workdir'
    if not network:
      remedy += f', or allow it: --allow_config_change={name}'
    raise errors.CheckpointError(
      f'config.{name}', value, f'the checkpoint of step {step} was trained with {old}', remedy
    )


def check_data(
  data: dict[str, Any], saved: dict[str, Any], step: int, allowed_changes: Sequence[str]
) -> None:
  """Raises CheckpointError where the training split is not the one that was trained on.

  A set that was prepared again has another manifest though its examples may be the same, so that
  change alone can be allowed, as `data.manifest`.
  """
  for name, value in data.items():
    if value == saved.get(name, value) or (name == _MANIFEST and DATA_CHANGE in allowed_changes):
      continue
    remedy = 'restore the data set, or take a new --workdir'
    if name == _MANIFEST:
      remedy += f', or allow it if the examples are the same: --allow_config_change={DATA_CHANGE}'
    raise errors.CheckpointError(
      f'data {name}', value, f'the checkpoint of step {step} was trained with {saved[name]}', remedy
    )


def warn_of_changes(environment: dict[str, Any], saved: dict[str, Any]) -> None:
  """Warns of each difference in what the bits depend on."""
  for name in ENVIRONMENT:
    new, old = environment[name], {**_UNRECORDED, **saved}.get(name)
    if new == old or old is None:
      continue
    changed = ['']
    if isinstance(new, dict) and isinstance(old, dict):
      changed = [key for key in new if new[key] != old.get(key)]
      old = ', '.join(f'{key} {old.get(key)}' for key in changed)
      new = ', '.join(f'{key} {new[key]}' for key in changed)
    effect = 'but the bits may differ'
    if set(changed) & set(_OF_DRAWS):
      effect = 'but cropped, mirrored and colored at random in another way'
    output.warn(f'{name} was {old}, is {new}: the same examples in the same order, {effect}')
