"""The training loop: data, model, optimizer, evaluation, checkpoints and logs tied together."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import ml_collections
import numpy as np
import optax

from bitnet_jax import (
  assemble,
  cluster,
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
  validation,
  watchdog,
)
from bitnet_jax.checkpoint import Checkpoints
from bitnet_jax.feeds import Feed
from bitnet_jax.plan import Plan, evaluates, make_plan, saves
from bitnet_jax.recorder import Recorder, make_recorder, run_ahead

Tree = Any
# (state, what the feed hands over, number of steps) -> state and report after that many.
TakeSteps = Callable[[Tree, Tree, int], tuple[Tree, Tree]]


@dataclasses.dataclass(frozen=True)
class Run:
  """What the loop works with, apart from the state.

  Attributes:
    config: validated.
    environment: of this process, see `records.environment`.
    data: what the training split is: number of examples, names of the classes, manifest.
    plan: how long the run is.
    checkpoints: of the work directory; None in a process that leaves them to the first.
    recorder: follows the steps.
    stopping: whether all processes stop; the same answer on each.
    watch: ends a run that stalls.
    evaluate: `evaluate(variables)`, {} if it was stopped.
  """

  config: ml_collections.ConfigDict
  environment: dict[str, Any]
  data: dict[str, Any]
  plan: Plan
  checkpoints: Checkpoints | None
  recorder: Recorder
  stopping: parallel.AnyProcess
  watch: watchdog.Watchdog
  evaluate: Callable[[Tree], dict[str, Any]]


def train(
  config: ml_collections.ConfigDict,
  workdir: str,
  *,
  watch: watchdog.Watchdog | None = None,
  allowed_changes: Sequence[str] = (),
  wrap_steps: Callable[[TakeSteps], TakeSteps] = lambda take_steps: take_steps,
) -> dict[str, Any]:
  """Trains, or goes on with what `workdir` holds, to the end of the last epoch.

  Args:
    config: validated.
    workdir: claimed by the first process, which alone writes configuration, metrics, checkpoints
      and `result.json` to it.
    watch: told of each step; None for none.
    allowed_changes: fields in which the run may differ from the checkpoint it goes on from.
    wrap_steps: what is called in place of the compiled steps; for benchmarks.

  Returns:
    What `result.json` holds: the test split's error and counts, the step, the time and the
    checkpoint; {} in all processes but the first.

  Raises:
    UserError: configuration, data, checkpoints or storage are at fault; the run diverged, or was
      asked to stop and has saved.
  """
  watch = watch or watchdog.Watchdog(0)
  splits = preflight.check(config, workdir if cluster.is_first() else None)
  compilation.keep_programs()
  watch.moved(watchdog.STARTING)
  plan = make_plan(config, len(splits.train))
  ahead = run_ahead(plan.steps_per_execution)
  stopping = parallel.AnyProcess(stop.requested, delay=ahead)
  end_if_asked(stopping, 0)
  kernels, repeated = assemble.choose_kernels(config), plan.steps_per_execution > 1
  environment = {**records.environment(), 'kernels': kernels, 'repeated': repeated}
  train_feed = feeds.open_training(config, splits.train)
  end_if_asked(stopping, 0)
  test_feed = feeds.open_evaluation(config, splits.test)
  watch.moved(watchdog.STARTING)
  model = assemble.make_model(config, len(train_feed.class_names), parallel.AXIS)
  optimizer, schedule = assemble.make_optimizer(config, plan)
  state = steps.create_state(model, optimizer, config.seed, train_feed.image_shape)
  end_if_asked(stopping, 0)
  identity = {
    'num_examples': train_feed.num_examples,
    'class_names': list(train_feed.class_names),
    'manifest': train_feed.fingerprint,
  }
  shared = {'kernels': kernels, 'num_test_examples': test_feed.num_examples}
  cluster.check_same(resume.shared_fields(config) | identity | shared | dataclasses.asdict(plan))
  checkpoints = None
  if cluster.is_first():
    keep = config.checkpoint
    checkpoints = Checkpoints(workdir, keep_latest=keep.keep_latest, keep_best=keep.keep_best)
  state, progress = resume.restore(
    checkpoints, config, state, environment=environment, data=identity, allowed=allowed_changes
  )
  start = int(state.step)
  resume.check_length(config, plan, start)
  if checkpoints:
    records.describe_run(config, workdir, plan, state.params, train_feed, environment)
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
    moved=lambda: watch.moved('in an evaluation'),
  )
  run = Run(
    config, environment, identity, plan, checkpoints, recorder, stopping, watch, run_evaluation
  )
  take_steps = make_steps(config, plan, model, optimizer, schedule, train_feed)
  try:
    result = train_steps(
      run, wrap_steps(take_steps), train_feed, parallel.replicate(state), start, progress
    )
  finally:
    train_feed.close()
    test_feed.close()
    if checkpoints:
      checkpoints.close()  # Whatever ended the loop: a save that is under way is finished first.
    recorder.close()
    watch.moved('')
  if not checkpoints:
    return {}
  return records.write_result(config, workdir, plan, result, recorder.seconds, checkpoints)


def make_steps(
  config: ml_collections.ConfigDict,
  plan: Plan,
  model: nn.Module,
  optimizer: optax.GradientTransformation,
  schedule: optax.Schedule,
  feed: Feed,
) -> TakeSteps:
  """The training steps, mapped over the devices."""
  step = steps.make_train_step(
    model,
    optimizer,
    schedule,
    fetch_batch=feed.fetch_batch,
    augment=assemble.make_augment(config),
    steps_per_epoch=plan.steps_per_epoch,
    log_every_steps=config.log.every_steps,
  )
  most = plan.steps_per_execution
  mapped = parallel.map_devices(steps.repeat(step, most), donate=(0,))

  def fits(batch_size: int) -> bool:
    return validation.batch_fits(batch_size, config.model.batch_norm_group, jax.device_count())

  guarded = memory.guard(mapped, 'config.global_batch_size', config.global_batch_size, fits)
  counts = {count: parallel.replicate(np.int32(count)) for count in range(1, most + 1)}
  return lambda state, inputs, count: guarded(state, inputs, counts[count])


def end_if_asked(stopping: parallel.AnyProcess, step: int) -> None:
  """Raises PreemptedError, in all processes, if one was asked to stop; nothing is saved."""
  cluster.meet()  # They may come minutes apart, after which a collective operation gives up.
  if stopping(now=True):
    raise errors.PreemptedError('step', step, 'asked to stop', 'run the command again')


def train_steps(
  run: Run,
  take_steps: TakeSteps,
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
  run.watch.moved('in training', start)
  if start < plan.total_steps:
    end_if_asked(run.stopping, start)
  step, intervals = start, (config.log.every_steps, config.checkpoint.every_steps)
  while step < plan.total_steps:
    inputs = feed.inputs_of(step)
    count = plan.count_steps(step, intervals)
    step += count
    run.watch.begins(step)
    state, report = take_steps(state, inputs, count)
    recorder.add(step, report, count)
    run.watch.moved('in training', step)
    if run.stopping() or evaluates(config, plan, step) or saves(config, plan, step):
      recorder.drain()
      check_divergence(run)
      result = settle(run, step, state)
      recorder.resume()
    check_divergence(run)
  # Nothing was evaluated where the run was over before this process began.
  result = result or run.evaluate(evaluation.variables_of(state))
  if not result:
    end_if_asked(run.stopping, start)
  return result


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
  result = run.evaluate(evaluation.variables_of(state)) if due else {}
  if result:
    run.recorder.evaluated(step, result)
  stops = run.stopping(now=True)
  if run.checkpoints:
    run.watch.moved(watchdog.SAVING)
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
  if stops:
    where = f'saved in {run.checkpoints.path(step)}' if run.checkpoints else 'process 0 saves'
    raise errors.PreemptedError('step', step, f'asked to stop; {where}', 'run the command again')
  cluster.meet()  # The first may have waited long for its storage.
  return result


def check_divergence(run: Run) -> None:
  """Raises DivergedError once the recorder saw the run diverge; nothing is saved after that."""
  if not run.recorder.diverged:
    return
  step, loss = run.recorder.diverged
  good = (run.checkpoints.latest_step() or 'none') if run.checkpoints else 'see process 0'
  raise errors.DivergedError(
    'loss',
    loss,
    f'diverged at step {step}; last good checkpoint: {good}',
    f'lower config.optim.learning_rate={run.config.optim.learning_rate}',
  )
