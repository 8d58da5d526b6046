"""Training: data, model, optimizer, evaluation, checkpoints and logs tied together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import ml_collections
import numpy as np
import optax

from bitnet_jax.checkpoints.manager import Checkpoints
from bitnet_jax.config import validation
from bitnet_jax.data import pipeline
from bitnet_jax.data.datasets.sources import Source
from bitnet_jax.distributed import cluster, devices
from bitnet_jax.logs import result as result_lib
from bitnet_jax.logs import run_info
from bitnet_jax.models import build
from bitnet_jax.runtime import host, preemption, watchdog
from bitnet_jax.training import (
  compilation,
  device_memory,
  evaluation,
  preflight,
  resume,
  setup,
  steps,
)
from bitnet_jax.training.loop import Run, TakeSteps, raise_if_stop_requested, train_steps
from bitnet_jax.training.plan import Plan, make_plan
from bitnet_jax.training.recorder import make_recorder, run_ahead

Tree = Any


def train(
  config: ml_collections.ConfigDict,
  workdir: str,
  *,
  watch: watchdog.Watchdog | None = None,
  allowed_changes: Sequence[str] = (),
  wrap_steps: Callable[[TakeSteps], TakeSteps] = lambda take_steps: take_steps,
  check_workdir: Callable[[], None] | None = None,
) -> dict[str, Any]:
  """Trains, or goes on with what `workdir` holds, to the end of the last epoch.

  Args:
    config: validated.
    workdir: claimed by the first process, which alone writes configuration, metrics, checkpoints
      and `result.json` to it.
    watch: told of each step; None for none.
    allowed_changes: fields in which the run may differ from the checkpoint it goes on from.
    wrap_steps: what is called in place of the compiled steps; for benchmarks.
    check_workdir: raises StorageError where `workdir` is not ours any more; asked before each save.

  Returns:
    What `result.json` holds: the test split's error and counts, the step, the time and the
    checkpoint; {} in all processes but the first.

  Raises:
    UserError: configuration, data, checkpoints or storage are at fault; the run diverged, or was
      asked to stop and has saved.
  """
  watch = watch or watchdog.Watchdog(0)
  if config.data.verify:  # Hundreds of gigabytes may take any time.
    watch.report('')
  splits = preflight.check(config, workdir if cluster.is_primary() else None)
  cluster.barrier()
  compilation.enable_persistent_cache()
  watch.report(watchdog.STARTING)
  plan = make_plan(config, len(splits.train))
  ahead = run_ahead(plan.steps_per_execution)
  stopping = devices.StopConsensus(preemption.requested, delay=ahead)
  raise_if_stop_requested(stopping, 0)
  # One of several would leave the loop while the others enter the step.
  alone = preemption.requested if jax.process_count() == 1 else lambda: False
  kernels, repeated = build.choose_kernels(config), plan.steps_per_execution > 1
  environment = {**run_info.environment(), 'kernels': kernels, 'repeated': repeated}
  model = build.make_model(config, len(splits.train.class_names), devices.AXIS)
  optimizer, schedule = setup.make_optimizer(config, plan)
  take_steps = make_steps(config, plan, model, optimizer, schedule, splits.train)
  train_feed = pipeline.open_training(config, splits.train, alone)
  raise_if_stop_requested(stopping, 0)
  test_feed = pipeline.open_evaluation(config, splits.test, stop=alone)
  watch.report(watchdog.STARTING)
  with host.gc_paused():
    state = steps.create_state(model, optimizer, config.seed, train_feed.image_shape)
  raise_if_stop_requested(stopping, 0)
  identity = {
    'num_examples': train_feed.num_examples,
    'class_names': list(train_feed.class_names),
    'image_shape': list(train_feed.image_shape),
    'manifest': train_feed.fingerprint,
  }
  shared = {'kernels': kernels, 'num_test_examples': test_feed.num_examples}
  cluster.check_same(resume.shared_fields(config) | identity | shared | dataclasses.asdict(plan))
  checkpoints = None
  if cluster.is_primary():
    keep = config.checkpoint
    checkpoints = Checkpoints(
      workdir,
      keep_latest=keep.keep_latest,
      keep_best=keep.keep_best,
      check_workdir=check_workdir,
    )
  state, progress = resume.restore(
    checkpoints, config, state, environment=environment, data=identity, allowed=allowed_changes
  )
  start = int(state.step)
  resume.check_length(config, plan, start)
  if checkpoints:
    run_info.describe_run(config, workdir, plan, state.params, train_feed, environment)
  recorder = make_recorder(
    config,
    workdir,
    plan,
    step=start,
    seconds=progress.seconds,
    settled=progress.settled,
    ahead=ahead,
  )
  if checkpoints and start:
    recorder.line(f'resumed from step {start}, {checkpoints.path(start)}')
  run_evaluation = evaluation.make_evaluator(
    model,
    test_feed,
    mean=config.data.mean,
    std=config.data.std,
    batch_size=config.eval.batch_size,
    stop=stopping,
    moved=lambda: watch.report('in an evaluation'),
  )
  run = Run(
    config, environment, identity, plan, checkpoints, recorder, stopping, watch, run_evaluation
  )
  try:
    result = train_steps(
      run, wrap_steps(take_steps), train_feed, devices.replicate(state), start, progress
    )
  finally:
    watch.report(watchdog.SAVING)
    train_feed.close()
    test_feed.close()
    if checkpoints:
      checkpoints.close()  # Whatever ended the loop: a save that is under way is finished first.
    recorder.close()
    watch.report('')
  if not checkpoints:
    return {}
  if check_workdir:
    check_workdir()
  return result_lib.write(config, workdir, plan, result, recorder.seconds, checkpoints)


@host.gc_paused()
def make_steps(
  config: ml_collections.ConfigDict,
  plan: Plan,
  model: nn.Module,
  optimizer: optax.GradientTransformation,
  schedule: optax.Schedule,
  source: Source,
) -> TakeSteps:
  """The training steps, mapped over the devices; they are compiled while the data are read."""
  step = steps.make_train_step(
    model,
    optimizer,
    schedule,
    fetch_batch=pipeline.fetch_training_batch(config),
    augment=pipeline.make_augment(config),
    steps_per_epoch=plan.steps_per_epoch,
    log_every_steps=config.log.every_steps,
  )
  most = plan.steps_per_execution
  mapped = devices.map_devices(steps.make_multi_step(step, most), donate=(0,))
  inputs = pipeline.training_shapes(config, source)
  state = steps.state_shapes(model, optimizer, inputs['image'].shape[1:])
  wait = compilation.compile_ahead(mapped, *devices.shapes((state, inputs, np.int32(0))))

  def fits(batch_size: int) -> bool:
    return validation.batch_fits(batch_size, config.model.batch_norm_group, jax.device_count())

  guarded = device_memory.explain_out_of_memory(
    mapped, 'config.global_batch_size', config.global_batch_size, fits
  )
  counts = {count: devices.replicate(np.int32(count)) for count in range(1, most + 1)}

  def take_steps(state: Tree, inputs: Tree, count: int) -> tuple[Tree, Tree]:
    wait()
    return guarded(state, inputs, counts[count])

  return take_steps
