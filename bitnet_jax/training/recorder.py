"""Records the steps of a run as they finish on the device: time, metrics, progress."""

from __future__ import annotations

import collections
import time
from typing import Any

import jax
import numpy as np

from bitnet_jax.distributed import devices
from bitnet_jax.logs.metric_writer import MetricWriter
from bitnet_jax.logs.progress_bar import ProgressBar, Silent
from bitnet_jax.training import metrics, steps
from bitnet_jax.training.plan import Plan
from bitnet_jax.training.resume import Progress
from bitnet_jax.training.setup import Setup

Tree = Any


class Recorder:
  """Logs the report of each call of the device, once the device is done with the call.

  Attributes:
    seconds: spent training so far, compilation included, evaluation and saving not.
    diverged: step and mean loss where the run was seen to diverge, or to end with a loss that is
      too large; None while it has not.
  """

  def __init__(
    self,
    writer: MetricWriter | Silent,
    progress: ProgressBar | Silent,
    plan: Plan,
    *,
    global_batch_size: int,
    log_every_steps: int,
    seconds: float,
    ahead: int = 4,
  ):
    """Starts the clock.

    Args:
      writer: takes the rows; of several processes, the first one's.
      progress: shows them; likewise.
      plan: how long the run is.
      global_batch_size: examples of a step.
      log_every_steps: length of the logging interval.
      seconds: spent training before this process began.
      ahead: calls the host may be ahead of the device.
    """
    self._ahead = ahead
    self._writer, self._progress, self._plan = writer, progress, plan
    self._global_batch_size, self._log_every_steps = global_batch_size, log_every_steps
    self._pending: collections.deque[tuple[int, Tree, int]] = collections.deque()
    self.seconds = seconds
    self.diverged: tuple[int, float] | None = None
    self._since = time.monotonic()
    # Steps of the interval and their time; the first call of a process compiles and is not timed.
    self._timed_steps, self._timed_seconds, self._compiled = 0, 0.0, False

  def add(self, step: int, report: Tree, count: int = 1) -> None:
    """Takes a call's report, and waits for the call that lies `ahead` calls before.

    Args:
      step: steps taken once the call is over; within it nothing has to be logged.
      report: of its last step, on the devices.
      count: steps it takes.
    """
    self._pending.append((step, report, count))
    if len(self._pending) > self._ahead:
      self._finish(*self._pending.popleft())

  def drain(self) -> None:
    """Waits for all dispatched steps and looks at the last; the clock stands until `resume`."""
    while self._pending:
      step, report, count = self._pending.popleft()
      self._finish(step, report, count)
      if not self._pending:
        self._check(step, devices.read_back(report))

  def resume(self) -> None:
    """Starts the clock again after an evaluation or a save."""
    self._since = time.monotonic()

  def evaluated(self, step: int, values: dict[str, float]) -> None:
    """Logs the result of an evaluation after `step` steps."""
    self._writer.write('eval', step, {'epoch': step / self._plan.steps_per_epoch, **values})
    self._progress.evaluated(step, values)

  def line(self, text: str) -> None:
    """Prints a line."""
    self._progress.line(text)

  def close(self) -> None:
    """Flushes the metrics and leaves the bar as it is."""
    self._progress.close()
    self._writer.close()

  def _finish(self, step: int, report: Tree, count: int) -> None:
    jax.block_until_ready(report)
    now = time.monotonic()
    self.seconds += now - self._since
    if self._compiled:
      self._timed_seconds += now - self._since
      self._timed_steps += count
    self._since, self._compiled = now, True

    self._progress.advance(step)
    ends_interval = step % self._log_every_steps == 0 or step == self._plan.total_steps
    ends_epoch = self._plan.ends_epoch(step)
    if ends_interval or ends_epoch:
      report = devices.read_back(report)
      self._check(step, report)
    if ends_interval:
      self._log_interval(step, report)
    if ends_epoch:
      self._log_epoch(step, report)

  def _check(self, step: int, report: Tree) -> None:
    # The end of a run is no place to wait whether its loss comes down again.
    enough = 1 if step == self._plan.total_steps else steps.DIVERGED
    if report['diverging'] >= enough and not self.diverged:
      sums = report['interval']
      self.diverged = step, float(sums['loss'] / sums['count'])

  def _log_interval(self, step: int, report: Tree) -> None:
    values = self._means(step, report, 'interval')
    if self._timed_steps > 0:
      values['seconds_per_step'] = self._timed_seconds / self._timed_steps
      values['images_per_second'] = self._global_batch_size / values['seconds_per_step']
    self._timed_steps, self._timed_seconds = 0, 0.0
    self._writer.write('train', step, values)
    self._progress.interval(step, values)

  def _log_epoch(self, step: int, report: Tree) -> None:
    self._writer.write('epoch', step, self._means(step, report, 'epoch'))

  def _means(self, step: int, report: Tree, span: str) -> dict[str, float]:
    sums = report[span]
    return {
      'epoch': step / self._plan.steps_per_epoch,
      'seconds': self.seconds,
      **metrics.summarize(sums),
      **_stem_gradient_norm(sums),
      'learning_rate': float(report['learning_rate']),
    }


def _stem_gradient_norm(sums: Tree) -> dict[str, float]:
  """Returns the mean norm; nothing for a network without a layer `steps.STEM`."""
  norm = float(sums['stem_gradient_norm'] / sums['steps'])
  return {'stem_gradient_norm': norm} if np.isfinite(norm) else {}


def make_recorder(job: Setup, workdir: str, *, step: int, progress: Progress) -> Recorder:
  """Makes the recorder of a run that goes on; the primary process's alone says anything.

  Args:
    job: data, model, optimizer, plan and control.
    workdir: of the run.
    step: steps taken.
    progress: seconds spent on them, and whether the evaluation due after them was done.
  """
  config, plan = job.config, job.plan
  writer: MetricWriter | Silent = Silent()
  bar: ProgressBar | Silent = Silent()
  if job.control.is_primary:
    writer = MetricWriter(
      workdir,
      resume_step=step,
      tensorboard=config.log.tensorboard,
      evaluated=progress.evaluated,
    )
    bar = ProgressBar(step=step, total_steps=plan.total_steps, steps_per_epoch=plan.steps_per_epoch)
  return Recorder(
    writer,
    bar,
    plan,
    global_batch_size=config.global_batch_size,
    log_every_steps=config.log.every_steps,
    seconds=progress.seconds,
    ahead=plan.run_ahead,
  )
