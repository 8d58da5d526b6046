"""The training loop: data, model, optimizer, evaluation, checkpoints and logs tied together."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np

from bitnet_jax import assemble, errors, evaluation, feeds, parallel, records, steps, trained
from bitnet_jax import config as config_lib
from bitnet_jax.checkpoint import Checkpoints
from bitnet_jax.data import augment
from bitnet_jax.feeds import Feed
from bitnet_jax.metric_writer import MetricWriter
from bitnet_jax.progress import Progress
from bitnet_jax.recorder import Recorder

Tree = Any

# Fields that may differ between a checkpoint and the run that goes on from it.
FREE_FIELDS = (
  'num_epochs',
  'init_from',
  'data.dir',
  'data.test_split',
  'data.workers',
  'data.timeout_seconds',
  'data.on_error',
  'data.max_skipped',
  'data.verify',
)
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
  train_feed = feeds.open_training(config)
  test_feed = feeds.open_evaluation(config, config.data.test_split)
  plan = assemble.make_plan(config, train_feed.num_examples)
  model = assemble.make_model(config, len(train_feed.class_names), parallel.AXIS)
  optimizer, schedule = assemble.make_optimizer(config, plan)
  state = steps.create_state(model, optimizer, config.seed, train_feed.image_shape)
  describe_run(config, workdir, plan, state.params, train_feed)

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
      fetch_batch=train_feed.fetch_batch,
      augment=make_augment(config),
      steps_per_epoch=plan.steps_per_epoch,
      log_every_steps=config.log.every_steps,
    ),
    donate=(0,),
  )
  run_evaluation = evaluation.make_evaluator(
    model, test_feed, mean=config.data.mean, std=config.data.std
  )
  state = parallel.replicate(state)
  result: dict[str, float] = {}

  for step in range(start + 1, plan.total_steps + 1):
    state, report = train_step(state, train_feed.inputs_of(step - 1))
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
  train_feed.close()
  test_feed.close()
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


def describe_run(
  config: ml_collections.ConfigDict,
  workdir: str,
  plan: assemble.Plan,
  params: Tree,
  feed: Feed,
) -> None:
  """Prints the configuration and the parameters, and writes the run's records."""
  derived = {
    'steps_per_epoch': plan.steps_per_epoch,
    'total_steps': plan.total_steps,
    'device_batch_size': config.global_batch_size // jax.device_count(),
    'num_train_examples': feed.num_examples,
    'class_names': feed.class_names,
    'image_shape': feed.image_shape,
    'parameters': sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params)),
  }
  records.write_run(workdir, config, derived)
  for name, value in config_lib.flatten(config):
    print(f'config.{name}={value}')
  print(records.parameter_table(params))
  print(
    f'{feed.num_examples} training images, {plan.steps_per_epoch} steps an epoch, '
    f'{plan.total_steps} steps on {jax.device_count()} {jax.devices()[0].platform} device(s)',
    flush=True,
  )


def restore(
  checkpoints: Checkpoints, config: ml_collections.ConfigDict, state: steps.TrainState
) -> tuple[steps.TrainState, float]:
  """The newest checkpoint's state and its seconds of training.

  If there is none: `state`, with what `init_from` names in it, and 0.

  Raises:
    CheckpointError: it cannot be read, or belongs to a run that trained otherwise.
  """
  step = checkpoints.latest_step()
  if step is None:
    if config.init_from:
      params, batch_stats = trained.transplant(state.params, state.batch_stats, config.init_from)
      state = dataclasses.replace(state, params=params, batch_stats=batch_stats)
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
