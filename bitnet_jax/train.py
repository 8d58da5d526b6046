"""The training loop: data, model, optimizer, evaluation, checkpoints and logs tied together."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import ml_collections
import numpy as np
import optax

from bitnet_jax import (
  assemble,
  compilation,
  errors,
  evaluation,
  feeds,
  memory,
  parallel,
  preflight,
  records,
  resume,
  steps,
  stop,
)
from bitnet_jax import config as config_lib
from bitnet_jax.checkpoint import Checkpoints
from bitnet_jax.data import augment
from bitnet_jax.feeds import Feed
from bitnet_jax.metric_writer import MetricWriter
from bitnet_jax.progress import Progress
from bitnet_jax.recorder import Recorder

Tree = Any
TrainStep = Callable[[Tree, Tree], tuple[Tree, Tree]]


@dataclasses.dataclass(frozen=True)
class Run:
  """What the loop works with, apart from the state.

  Attributes:
    config: validated.
    environment: of this process, see `records.environment`.
    data: what the training split is: number of examples and names of the classes.
    plan: how long the run is.
    checkpoints: of the work directory.
    recorder: follows the steps.
    evaluate: `evaluate(variables)`, {} if it was stopped.
  """

  config: ml_collections.ConfigDict
  environment: dict[str, Any]
  data: dict[str, Any]
  plan: assemble.Plan
  checkpoints: Checkpoints
  recorder: Recorder
  evaluate: Callable[[Tree], dict[str, Any]]


def train(
  config: ml_collections.ConfigDict,
  workdir: str,
  *,
  allowed_changes: Sequence[str] = (),
  wrap_step: Callable[[TrainStep], TrainStep] = lambda step: step,
) -> dict[str, Any]:
  """Trains, or goes on with what `workdir` holds, to the end of the last epoch.

  Args:
    config: validated.
    workdir: claimed; takes configuration, metrics, checkpoints and `result.json`.
    allowed_changes: fields in which the run may differ from the checkpoint it goes on from.
    wrap_step: what is called in place of the compiled step; for benchmarks.

  Returns:
    What `result.json` holds: the test split's error and counts, the step, the time and the
    checkpoint.

  Raises:
    UserError: configuration, data, checkpoints or storage are at fault; the run diverged, or was
      asked to stop and has saved.
  """
  preflight.check(config, workdir)
  end_if_asked(0)
  compilation.keep_programs()
  environment = {**records.environment(), 'kernels': assemble.choose_kernels(config)}
  train_feed = feeds.open_training(config)
  end_if_asked(0)
  test_feed = feeds.open_evaluation(config, config.data.test_split)
  plan = assemble.make_plan(config, train_feed.num_examples)
  model = assemble.make_model(config, len(train_feed.class_names), parallel.AXIS)
  optimizer, schedule = assemble.make_optimizer(config, plan)
  state = steps.create_state(model, optimizer, config.seed, train_feed.image_shape)
  end_if_asked(0)
  keep = config.checkpoint
  checkpoints = Checkpoints(workdir, keep_latest=keep.keep_latest, keep_best=keep.keep_best)
  identity = {
    'num_examples': train_feed.num_examples,
    'class_names': list(train_feed.class_names),
    'manifest': train_feed.fingerprint,
  }
  state, progress = resume.restore(
    checkpoints, config, state, environment=environment, data=identity, allowed=allowed_changes
  )
  start = int(state.step)
  check_length(config, plan, start)
  describe_run(config, workdir, plan, state.params, train_feed, environment)
  recorder = make_recorder(config, workdir, plan, start, progress)
  if start:
    recorder.line(f'resumed from step {start}, {checkpoints.path(start)}')
  run_evaluation = evaluation.make_evaluator(
    model,
    test_feed,
    mean=config.data.mean,
    std=config.data.std,
    batch_size=config.eval.batch_size,
    stop=stop.requested,
  )
  run = Run(config, environment, identity, plan, checkpoints, recorder, run_evaluation)
  train_step = make_step(config, plan, model, optimizer, schedule, train_feed)
  try:
    result = train_steps(
      run, wrap_step(train_step), train_feed, parallel.replicate(state), start, progress
    )
  finally:
    train_feed.close()
    test_feed.close()
    checkpoints.close()  # Whatever ended the loop: a save that is under way is finished first.
    recorder.close()
  return write_result(config, workdir, plan, result, recorder.seconds, checkpoints)


def make_step(
  config: ml_collections.ConfigDict,
  plan: assemble.Plan,
  model: nn.Module,
  optimizer: optax.GradientTransformation,
  schedule: optax.Schedule,
  feed: Feed,
) -> TrainStep:
  """The training step, mapped over the devices."""
  step = parallel.map_devices(
    steps.make_train_step(
      model,
      optimizer,
      schedule,
      fetch_batch=feed.fetch_batch,
      augment=make_augment(config),
      steps_per_epoch=plan.steps_per_epoch,
      log_every_steps=config.log.every_steps,
    ),
    donate=(0,),
  )

  def fits(batch_size: int) -> bool:
    return config_lib.batch_fits(batch_size, config.model.batch_norm_group, jax.device_count())

  return memory.guard(step, 'config.global_batch_size', config.global_batch_size, fits)


def end_if_asked(step: int) -> None:
  """Raises PreemptedError if the run was asked to stop where nothing is to be saved."""
  if stop.requested():
    raise errors.PreemptedError('step', step, 'asked to stop', 'run the command again')


def train_steps(
  run: Run,
  train_step: TrainStep,
  feed: Feed,
  state: Tree,
  start: int,
  progress: resume.Progress,
) -> dict[str, Any]:
  """Takes the steps after the first `start`, with the state on the devices.

  Returns:
    The evaluation after the last step.
  """
  config, plan, recorder = run.config, run.plan, run.recorder
  result = settle(run, start, state, again=True) if not progress.settled else {}
  recorder.resume()
  for step in range(start + 1, plan.total_steps + 1):
    if step == start + 1:
      end_if_asked(start)
    state, report = train_step(state, feed.inputs_of(step - 1))
    recorder.add(step, report)
    if evaluates(config, plan, step) or saves(config, plan, step) or stop.requested():
      recorder.drain()
      check_divergence(run)
      result = settle(run, step, state)
      recorder.resume()
    check_divergence(run)
  # Nothing was evaluated where the run was over before this process began.
  result = result or run.evaluate(variables_of(state))
  if not result:
    end_if_asked(start)
  return result


def check_length(config: ml_collections.ConfigDict, plan: assemble.Plan, step: int) -> None:
  """Raises ConfigError where the run went further than it is now said to go."""
  if step > plan.total_steps:
    raise errors.ConfigError(
      'config.num_epochs',
      config.num_epochs,
      f'the run has taken {step} steps already, these are {plan.total_steps}',
      f'use {step / plan.steps_per_epoch:g} or more',
    )


def settle(run: Run, step: int, state: steps.TrainState, *, again: bool = False) -> dict[str, Any]:
  """Evaluates and saves, each if it is due after `step` steps.

  Args:
    run: what the loop works with.
    step: steps taken.
    state: on the devices.
    again: this step was saved when its evaluation was stopped, so without its error.

  Returns:
    The evaluation's result, {} if none was due.

  Raises:
    PreemptedError: the run was asked to stop; it has saved, due or not.
  """
  due = evaluates(run.config, run.plan, step)
  result = run.evaluate(variables_of(state)) if due else {}
  if result:
    run.recorder.evaluated(step, result)
  stops = stop.requested()
  host = parallel.read_back(state)
  # A state whose loss is too large just now would push good ones out of those that are kept.
  due_now = saves(run.config, run.plan, step) and not host.diverging
  steps_saved = run.checkpoints.steps()
  # A save replaces what was saved of the step, so another one has to stand while it is written.
  is_new = step not in steps_saved or (again and bool(result) and len(steps_saved) > 1)
  if (due_now or stops) and is_new:
    progress = resume.Progress(run.recorder.seconds, settled=bool(result) or not due)
    record = resume.make_record(run.config, run.environment, run.data, progress)
    run.checkpoints.save(step, host, record, result.get('error'))
  if stops:
    run.checkpoints.wait()
    path = run.checkpoints.path(step)
    raise errors.PreemptedError(
      'step', step, f'asked to stop; saved in {path}', 'run the command again'
    )
  return result


def evaluates(config: ml_collections.ConfigDict, plan: assemble.Plan, step: int) -> bool:
  """Whether the test split is evaluated after `step` steps."""
  return plan.is_due(step, config.eval.every_epochs)


def saves(config: ml_collections.ConfigDict, plan: assemble.Plan, step: int) -> bool:
  """Whether a checkpoint is taken after `step` steps."""
  every_steps = config.checkpoint.every_steps
  in_interval = bool(every_steps) and step % every_steps == 0
  return in_interval or plan.is_due(step, config.checkpoint.every_epochs)


def check_divergence(run: Run) -> None:
  """Raises DivergedError once the recorder saw the run diverge; nothing is saved after that."""
  if not run.recorder.diverged:
    return
  step, loss = run.recorder.diverged
  good = run.checkpoints.latest_step()
  raise errors.DivergedError(
    'loss',
    loss,
    f'diverged at step {step}; last good checkpoint: {good or "none"}',
    f'lower config.optim.learning_rate={run.config.optim.learning_rate}',
  )


def variables_of(state: steps.TrainState) -> Tree:
  """What the network is applied with."""
  return {'params': state.params, 'batch_stats': state.batch_stats}


def make_recorder(
  config: ml_collections.ConfigDict,
  workdir: str,
  plan: assemble.Plan,
  step: int,
  progress: resume.Progress,
) -> Recorder:
  """The recorder of a run that has taken `step` steps."""
  tensorboard = config.log.tensorboard
  return Recorder(
    MetricWriter(workdir, resume_step=step, tensorboard=tensorboard, settled=progress.settled),
    Progress(step=step, total_steps=plan.total_steps, steps_per_epoch=plan.steps_per_epoch),
    plan,
    global_batch_size=config.global_batch_size,
    log_every_steps=config.log.every_steps,
    seconds=progress.seconds,
  )


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
  environment: dict[str, Any],
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
  records.write_run(workdir, config, {**environment, 'derived': derived})
  for name, value in config_lib.flatten(config):
    print(f'config.{name}={value}')
  print(records.parameter_table(params))
  print(
    f'{feed.num_examples} training images, {plan.steps_per_epoch} steps an epoch, '
    f'{plan.total_steps} steps on {jax.device_count()} {jax.devices()[0].platform} device(s)',
    flush=True,
  )


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
