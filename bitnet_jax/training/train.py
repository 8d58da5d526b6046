"""Trains a network: data, model, state, loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from bitnet_jax.checkpoints.manager import Checkpoints
from bitnet_jax.config import validation
from bitnet_jax.data import pipeline
from bitnet_jax.distributed import cluster, devices
from bitnet_jax.logs import result as result_lib
from bitnet_jax.logs import run_info
from bitnet_jax.runtime import host, watchdog
from bitnet_jax.training import compilation, device_memory, evaluation, resume, setup, steps
from bitnet_jax.training.loop import Run, TakeSteps, train_steps
from bitnet_jax.training.recorder import make_recorder
from bitnet_jax.training.setup import Setup

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
    workdir: claimed by the primary process, which alone writes configuration, metrics, checkpoints
      and `result.json` to it.
    watch: told of each step; None for none.
    allowed_changes: fields in which the run may differ from the checkpoint it goes on from.
    wrap_steps: what is called in place of the compiled steps; for benchmarks.
    check_workdir: raises StorageError where `workdir` is not ours any more; asked before each save.

  Returns:
    What `result.json` holds: the test split's error and counts, the step, the time and the
    checkpoint; {} in all processes but the primary one.

  Raises:
    UserError: configuration, data, checkpoints or storage are at fault; the run diverged, or was
      asked to stop and has saved.
  """
  job = setup.prepare(config, workdir, watch or watchdog.Watchdog(0))
  take_steps = wrap_steps(make_steps(job))
  setup.load_data(job)
  with host.gc_paused():
    state = steps.create_state(job.model, job.optimizer, config.seed, job.train.image_shape)
  job.control.raise_if_stop_requested(0)
  cluster.check_same(_shared(job))
  checkpoints = _open_checkpoints(job, workdir, check_workdir)
  state, progress = resume.restore(job, checkpoints, state, allowed_changes)
  start = int(state.step)
  if checkpoints:
    run_info.describe_run(config, workdir, job.plan, state.params, job.train, job.environment)
  recorder = make_recorder(job, workdir, step=start, progress=progress)
  if checkpoints and start:
    recorder.line(f'resumed from step {start}, {checkpoints.path(start)}')
  run = Run(job, checkpoints, recorder, evaluation.of_test_split(job))
  try:
    result = train_steps(run, take_steps, devices.replicate(state), start, progress)
  finally:
    run.close()
  if not checkpoints:
    return {}
  if check_workdir:
    check_workdir()
  return result_lib.write(config, workdir, job.plan, result, recorder.seconds, checkpoints)


@host.gc_paused()
def make_steps(job: Setup) -> TakeSteps:
  """Makes the training steps, mapped over the devices; they compile while the data are read."""
  config, plan = job.config, job.plan
  step = steps.make_train_step(
    job.model,
    job.optimizer,
    job.schedule,
    fetch_batch=job.train.fetch_batch,
    augment=pipeline.make_augment(config),
    steps_per_epoch=plan.steps_per_epoch,
    log_every_steps=config.log.every_steps,
  )
  max_count = plan.steps_per_execution
  mapped = devices.map_devices(steps.make_multi_step(step, max_count), donate=(0,))
  state = steps.state_shapes(job.model, job.optimizer, job.train.image_shape)
  shapes = devices.shapes((state, job.train.shapes, np.int32(0)))
  wait = compilation.compile_ahead(mapped, *shapes)

  def fits(batch_size: int) -> bool:
    return validation.batch_fits(batch_size, config.model.batch_norm_group, jax.device_count())

  explained = device_memory.explain_out_of_memory(
    mapped, 'config.global_batch_size', config.global_batch_size, fits
  )
  counts = {count: devices.replicate(np.int32(count)) for count in range(1, max_count + 1)}

  def take_steps(state: Tree, inputs: Tree, count: int) -> tuple[Tree, Tree]:
    wait()
    return explained(state, inputs, counts[count])

  return take_steps


def _open_checkpoints(
  job: Setup, workdir: str, check_workdir: Callable[[], None] | None
) -> Checkpoints | None:
  """Opens the checkpoints in the primary process; None in the others."""
  if not job.control.is_primary:
    return None
  keep = job.config.checkpoint
  return Checkpoints(
    workdir,
    keep_latest=keep.keep_latest,
    keep_best=keep.keep_best,
    check_workdir=check_workdir,
  )


def _shared(job: Setup) -> dict[str, Any]:
  """Returns what must be the same in all processes, by name."""
  return {
    **resume.shared_fields(job.config),
    **job.identity,
    'kernels': job.environment['kernels'],
    'num_test_examples': job.test.num_examples,
    **dataclasses.asdict(job.plan),
  }
