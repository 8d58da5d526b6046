"""The training loop: steps, evaluations and checkpoints, until the end or a request to stop."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import ml_collections

from bitnet_jax import errors
from bitnet_jax.checkpoints.manager import Checkpoints
from bitnet_jax.data.batches import stream
from bitnet_jax.data.pipeline import Pipeline
from bitnet_jax.distributed import cluster, devices
from bitnet_jax.runtime import watchdog
from bitnet_jax.training import evaluation, resume, steps
from bitnet_jax.training.plan import Plan, evaluates, saves
from bitnet_jax.training.recorder import Recorder

Tree = Any
# (state, what the feed hands over, number of steps) -> state and report after that many.
TakeSteps = Callable[[Tree, Tree, int], tuple[Tree, Tree]]


@dataclasses.dataclass(frozen=True)
class Run:
  """What the loop works with, apart from the state.

  Attributes:
    config: validated.
    environment: of this process, see `records.environment`.
    data: what the training split is: examples, names of the classes, shape, manifest.
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
  stopping: devices.StopConsensus
  watch: watchdog.Watchdog
  evaluate: Callable[[Tree], dict[str, Any]]


def raise_if_stop_requested(stopping: devices.StopConsensus, step: int) -> None:
  """Raises PreemptedError, in all processes, if one was asked to stop; nothing is saved."""
  cluster.barrier()  # They may come minutes apart, after which a collective operation gives up.
  if stopping(now=True):
    raise errors.PreemptedError('step', step, 'asked to stop', 'run the command again')


def train_steps(
  run: Run,
  take_steps: TakeSteps,
  feed: Pipeline,
  state: Tree,
  start: int,
  progress: resume.Progress,
) -> dict[str, Any]:
  """Takes the steps after the first `start`, with the state on the devices.

  Returns:
    The evaluation after the last step.
  """
  config, plan, recorder = run.config, run.plan, run.recorder
  result = evaluate_and_save(run, start, state, again=True) if not progress.settled else {}
  recorder.resume()
  run.watch.report('in training', start)
  if start < plan.total_steps:
    raise_if_stop_requested(run.stopping, start)
  step, intervals = start, (config.log.every_steps, config.checkpoint.every_steps)
  while step < plan.total_steps:
    try:
      inputs = feed.inputs_of(step)
    except stream.Stopped:  # Alone, a process need not wait for a batch that may never come.
      if step == start:
        raise_if_stop_requested(run.stopping, start)
      recorder.drain()
      check_divergence(run)
      evaluate_and_save(run, step, state)  # Raises PreemptedError.
      raise
    count = plan.count_steps(step, intervals)
    step += count
    run.watch.step_started(step)
    state, report = take_steps(state, inputs, count)
    recorder.add(step, report, count)
    run.watch.report('in training', step)
    if run.stopping() or evaluates(config, plan, step) or saves(config, plan, step):
      recorder.drain()
      check_divergence(run)
      result = evaluate_and_save(run, step, state)
      recorder.resume()
      run.watch.report('in training', step)
    check_divergence(run)
  # Nothing was evaluated where the run was over before this process began.
  result = result or run.evaluate(evaluation.variables_of(state))
  if not result:
    raise_if_stop_requested(run.stopping, start)
  return result


def evaluate_and_save(
  run: Run, step: int, state: steps.TrainState, *, again: bool = False
) -> dict[str, Any]:
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
  run.watch.report(watchdog.SAVING)  # All wait for the first, which saves.
  if run.checkpoints:
    host = devices.read_back(state)
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
  cluster.barrier()  # The first may have waited long for its storage.
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
