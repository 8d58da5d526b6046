"""The training loop: steps, evaluations and checkpoints, until the end or a request to stop."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from bitnet_jax import errors
from bitnet_jax.checkpoints.manager import Checkpoints
from bitnet_jax.data.batches import stream
from bitnet_jax.distributed import devices
from bitnet_jax.runtime import watchdog
from bitnet_jax.training import evaluation, resume, steps
from bitnet_jax.training.plan import evaluates, saves
from bitnet_jax.training.recorder import Recorder
from bitnet_jax.training.setup import Setup

Tree = Any
# (state, what the pipeline hands over, number of steps) -> state and report after that many.
TakeSteps = Callable[[Tree, Tree, int], tuple[Tree, Tree]]


@dataclasses.dataclass(frozen=True)
class Run:
  """What the loop works with, apart from the state.

  Attributes:
    job: data, model, optimizer, plan and control.
    checkpoints: of the work directory; None in all processes but the primary one.
    recorder: follows the steps.
    evaluate: `evaluate(variables)`, {} if it was stopped.
  """

  job: Setup
  checkpoints: Checkpoints | None
  recorder: Recorder
  evaluate: Callable[[Tree], dict[str, Any]]

  def close(self) -> None:
    """Ends what reads ahead, and finishes a save that is under way."""
    self.job.control.report(watchdog.SAVING)
    self.job.train.close()
    self.job.test.close()
    if self.checkpoints:
      self.checkpoints.close()
    self.recorder.close()
    self.job.control.report('')


def train_steps(
  run: Run, take_steps: TakeSteps, state: Tree, start: int, progress: resume.Progress
) -> dict[str, Any]:
  """Takes the steps after the first `start`, with the state on the devices.

  Returns:
    The evaluation after the last step.
  """
  config, plan, control = run.job.config, run.job.plan, run.job.control
  result = evaluate_and_save(run, start, state, again=True) if not progress.evaluated else {}
  run.recorder.resume()
  control.report('in training', start)
  if start < plan.total_steps:
    control.raise_if_stop_requested(start)
  step, intervals = start, (config.log.every_steps, config.checkpoint.every_steps)
  while step < plan.total_steps:
    try:
      inputs = run.job.train.inputs(step)
    except stream.Stopped:  # One process alone need not wait for a batch that may never come.
      if step == start:
        control.raise_if_stop_requested(start)
      _settle(run, step, state)  # Raises PreemptedError.
      raise
    count = plan.count_steps(step, intervals)
    step += count
    control.step_started(step)
    state, report = take_steps(state, inputs, count)
    run.recorder.add(step, report, count)
    control.report('in training', step)
    if control.stop_requested() or evaluates(config, plan, step) or saves(config, plan, step):
      result = _settle(run, step, state)
      run.recorder.resume()
      control.report('in training', step)
    check_divergence(run)
  # Nothing was evaluated where the run was over before this process began.
  result = result or run.evaluate(evaluation.variables_of(state))
  if not result:
    control.raise_if_stop_requested(start)
  return result


def _settle(run: Run, step: int, state: Tree) -> dict[str, Any]:
  """Waits for the steps that were dispatched, then evaluates and saves."""
  run.recorder.drain()
  check_divergence(run)
  return evaluate_and_save(run, step, state)


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
  control = run.job.control
  due = evaluates(run.job.config, run.job.plan, step)
  result = run.evaluate(evaluation.variables_of(state)) if due else {}
  if result:
    run.recorder.evaluated(step, result)
  stops = control.stop_requested(now=True)
  control.report(watchdog.SAVING)  # All processes wait for the primary one, which saves.
  if run.checkpoints:
    evaluated = bool(result) or not due
    _save(run.checkpoints, run, step, state, result, evaluated, stops=stops, again=again)
  if stops:
    where = f'saved in {run.checkpoints.path(step)}' if run.checkpoints else 'process 0 saves'
    raise errors.PreemptedError('step', step, f'asked to stop; {where}', 'run the command again')
  control.barrier()  # The primary process may have waited long for its storage.
  return result


def _save(
  checkpoints: Checkpoints,
  run: Run,
  step: int,
  state: steps.TrainState,
  result: dict[str, Any],
  evaluated: bool,
  *,
  stops: bool,
  again: bool,
) -> None:
  """Saves the state if that is due or the run stops, unless it is saved already."""
  job = run.job
  host_state = devices.read_back(state)
  # A state whose loss is too large just now would push good ones out of those that are kept.
  due = saves(job.config, job.plan, step) and not host_state.diverging
  steps_saved = checkpoints.steps()
  # A save replaces what was saved of the step, so another one has to stand while it is written.
  is_new = step not in steps_saved or (again and bool(result) and len(steps_saved) > 1)
  if (due or stops) and is_new:
    progress = resume.Progress(run.recorder.seconds, evaluated)
    record = resume.make_record(job.config, job.environment, job.identity, progress)
    checkpoints.save(step, host_state, record, result.get('error'))
  if stops:
    checkpoints.wait()


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
    f'lower config.optim.learning_rate={run.job.config.optim.learning_rate}',
  )
