"""The training loop: data, model, optimizer, evaluation, checkpoints and logs tied together."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np

from bitnet_jax import assemble, errors, evaluate, parallel, records, steps
from bitnet_jax import config as config_lib
from bitnet_jax.checkpoint import Checkpoints
from bitnet_jax.data import augment, order, resident
from bitnet_jax.data.arrays import Arrays
from bitnet_jax.metric_writer import MetricWriter
from bitnet_jax.progress import Progress
from bitnet_jax.recorder import Recorder

Tree = Any

# Fields that may differ between a checkpoint and the run that goes on from it.
FREE_FIELDS = ('num_epochs', 'data.dir', 'data.test_split')
FREE_SECTIONS = ('eval', 'checkpoint', 'log')


def train(config: ml_collections.ConfigDict, workdir: str) -> dict[str, Any]:
  """Trains, or goes on with what `workdir` holds, to the end of the last epoch.

  Args:
    config: validated.
    workdir: takes configuration, metrics, checkpoints and `result.json`.

  Returns:
    What `result.json` holds: the test split's error and counts, the step, the time and the
    checkpoint.

  Raises:
    UserError: configuration, data or checkpoints are at fault.
  """
  config_lib.validate_devices(config, jax.device_count())
  train_set = assemble.load_split(config, config.data.train_split)
  test_set = assemble.load_split(config, config.data.test_split)
  plan = assemble.make_plan(config, len(train_set.label))
  model = assemble.make_model(config, len(train_set.class_names), parallel.AXIS)
  optimizer, schedule = assemble.make_optimizer(config, plan)
  state = steps.create_state(model, optimizer, config.seed, train_set.image.shape[1:])
  describe_run(config, workdir, plan, state.params, train_set)

  checkpoints = Checkpoints(
    workdir, keep_latest=config.checkpoint.keep_latest, keep_best=config.checkpoint.keep_best
  )
  state, seconds = restore(checkpoints, config, state)
  start = int(state.step)
  recorder = make_recorder(config, workdir, plan, step=start, seconds=seconds)
  if start:
    recorder.line(f'resumed from step {start}, {checkpoints.path(start)}')
  train_step = parallel.map_devices(
    steps.make_train_step(
      model,
      optimizer,
      schedule,
      fetch_batch=resident.fetch_batch,
      augment=make_augment(config),
      steps_per_epoch=plan.steps_per_epoch,
      log_every_steps=config.log.every_steps,
    ),
    donate=(0,),
  )
  run_evaluation = evaluate.make_evaluator(
    model,
    test_set.image,
    test_set.label,
    batch_size=config.eval.batch_size,
    mean=config.data.mean,
    std=config.data.std,
  )
  inputs_of = resident_inputs(config, train_set, plan)
  state = parallel.replicate(state)
  result: dict[str, float] = {}

  for step in range(start + 1, plan.total_steps + 1):
    state, report = train_step(state, inputs_of(step))
    recorder.add(step, report)
    evaluates = plan.is_due(step, config.eval.every_epochs)
    saves = is_save_due(config, plan, step)
    if evaluates or saves:
      recorder.drain()
    if evaluates:
      result = run_evaluation(variables_of(state))
      recorder.evaluated(step, result)
    if saves:
      record = {'config': config.to_dict(), 'seconds': recorder.seconds}
      error = result['error'] if evaluates else None
      checkpoints.save(step, parallel.read_back(state), record, error)
    if evaluates or saves:
      recorder.resume()

  result = result or run_evaluation(variables_of(state))  # The run was over before this process.
  checkpoints.close()
  recorder.close()
  return write_result(config, workdir, plan, result, recorder.seconds, checkpoints)


def variables_of(state: steps.TrainState) -> Tree:
  """What the network is applied with."""
  return {'params': state.params, 'batch_stats': state.batch_stats}


def make_recorder(
  config: ml_collections.ConfigDict,
  workdir: str,
  plan: assemble.Plan,
  *,
  step: int,
  seconds: float,
) -> Recorder:
  """The recorder of a run that has taken `step` steps in `seconds`."""
  return Recorder(
    MetricWriter(workdir, resume_step=step, tensorboard=config.log.tensorboard),
    Progress(step=step, total_steps=plan.total_steps, steps_per_epoch=plan.steps_per_epoch),
    plan,
    global_batch_size=config.global_batch_size,
    log_every_steps=config.log.every_steps,
    seconds=seconds,
  )


def is_save_due(config: ml_collections.ConfigDict, plan: assemble.Plan, step: int) -> bool:
  """Whether a checkpoint is taken after `step` steps."""
  every_steps = config.checkpoint.every_steps
  in_interval = bool(every_steps) and step % every_steps == 0
  return in_interval or plan.is_due(step, config.checkpoint.every_epochs)


def make_augment(config: ml_collections.ConfigDict) -> steps.AugmentBatch:
  """The augmentation of a configuration, with the run's seed bound into it."""
  transform = augment.make_train_augment(
    mean=config.data.mean, std=config.data.std, **config.augment
  )

  def augment_batch(images: jax.Array, step: jax.Array, positions: jax.Array) -> jax.Array:
    keys = augment.example_keys(jax.random.key(config.seed), step, positions)
    return transform(images, keys)

  return augment_batch


def resident_inputs(
  config: ml_collections.ConfigDict, train_set: Arrays, plan: assemble.Plan
) -> Callable[[int], Tree]:
  """Puts a training split on the devices.

  Returns:
    `inputs_of(step)`, what the step that is the `step`-th, counted from 1, is given. The order of
    an epoch is put on the devices at its first step; nothing else is transferred.
  """
  inputs = parallel.replicate({'image': train_set.image, 'label': train_set.label})
  placed = -1

  def inputs_of(step: int) -> Tree:
    nonlocal placed
    epoch = (step - 1) // plan.steps_per_epoch
    if epoch != placed:
      permutation = order.epoch_order(config.seed, epoch, len(train_set.label))
      batches = resident.training_order(permutation, config.global_batch_size, jax.device_count())
      inputs['order'], placed = parallel.scatter(batches), epoch
    return inputs

  return inputs_of


def describe_run(
  config: ml_collections.ConfigDict,
  workdir: str,
  plan: assemble.Plan,
  params: Tree,
  train_set: Arrays,
) -> None:
  """Prints the configuration and the parameters, and writes the run's records."""
  derived = {
    'steps_per_epoch': plan.steps_per_epoch,
    'total_steps': plan.total_steps,
    'device_batch_size': config.global_batch_size // jax.device_count(),
    'num_train_examples': len(train_set.label),
    'class_names': train_set.class_names,
    'image_shape': train_set.image.shape[1:],
    'parameters': sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params)),
  }
  records.write_run(workdir, config, derived)
  for name, value in config_lib.flatten(config):
    print(f'config.{name}={value}')
  print(records.parameter_table(params))
  print(
    f'{len(train_set.label)} training images, {plan.steps_per_epoch} steps an epoch, '
    f'{plan.total_steps} steps on {jax.device_count()} {jax.devices()[0].platform} device(s)',
    flush=True,
  )


def restore(
  checkpoints: Checkpoints, config: ml_collections.ConfigDict, state: steps.TrainState
) -> tuple[steps.TrainState, float]:
  """The newest checkpoint's state and its seconds of training; `state` and 0 if there is none.

  Raises:
    CheckpointError: it cannot be read, or belongs to a run that trained otherwise.
  """
  step = checkpoints.latest_step()
  if step is None:
    return state, 0.0
  record = checkpoints.read_record(step)
  before = dict(config_lib.flatten(record['config']))
  for name, value in config_lib.flatten(config):
    free = name in FREE_FIELDS or name.split('.')[0] in FREE_SECTIONS
    old = before.get(name)
    old = tuple(old) if isinstance(old, list) else old
    if not free and name in before and old != value:
      raise errors.CheckpointError(
        f'config.{name}',
        value,
        f'the checkpoint of step {step} was trained with {old}',
        'restore that value, or take a new --workdir',
      )
  return checkpoints.restore(step, state), record['seconds']


def write_result(
  config: ml_collections.ConfigDict,
  workdir: str,
  plan: assemble.Plan,
  evaluation: dict[str, float],
  seconds: float,
  checkpoints: Checkpoints,
) -> dict[str, Any]:
  """Writes `result.json` and returns what it holds."""
  result = {
    'split': config.data.test_split,
    **evaluation,
    'step': plan.total_steps,
    'epoch': plan.total_steps / plan.steps_per_epoch,
    'train_seconds': seconds,
    'checkpoint': checkpoints.path(plan.total_steps),
    'best_checkpoint': checkpoints.path(checkpoints.best_step() or plan.total_steps),
  }
  records.write_json(pathlib.Path(workdir) / 'result.json', result)
  return result
