"""Decides how long a run is, and what is due after which step."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import ml_collections

from bitnet_jax import errors

# Starting a program takes the host a fraction of a millisecond, a small network's step on a GPU a
# few: in so many it no longer counts. A request to stop waits for them.
_STEPS_PER_EXECUTION = 10
# Calls the host may be ahead of the device: enough to keep it busy, few enough that progress is
# true and a request to stop is met at once.
_RUN_AHEAD = 4


@dataclasses.dataclass(frozen=True)
class Plan:
  """Holds the length of a run.

  Attributes:
    steps_per_epoch: whole batches of the training split.
    total_steps: of the run.
    steps_per_execution: largest number of steps of a call of the device.
  """

  steps_per_epoch: int
  total_steps: int
  steps_per_execution: int = 1

  @property
  def run_ahead(self) -> int:
    """Calls the host may be ahead of the device: one where a call has many steps."""
    return _RUN_AHEAD if self.steps_per_execution == 1 else 1

  def ends_epoch(self, step: int) -> bool:
    """Returns whether an epoch, or the run, is over after `step` steps."""
    return step % self.steps_per_epoch == 0 or step == self.total_steps

  def is_due(self, step: int, every_epochs: int) -> bool:
    """Returns whether what is due every so many epochs, and at the end, is due after `step`."""
    if step == self.total_steps:
      return True
    epoch, rest = divmod(step, self.steps_per_epoch)
    return bool(every_epochs) and rest == 0 and epoch % every_epochs == 0

  def count_steps(self, step: int, intervals: Sequence[int]) -> int:
    """Returns the steps of the next call, which ends where anything is due.

    Args:
      step: steps taken.
      intervals: steps between things that are due; 0 for never.
    """
    lengths = (self.steps_per_epoch, *intervals)
    ends = [step + length - step % length for length in lengths if length]
    return min(step + self.steps_per_execution, self.total_steps, *ends) - step


def make_plan(
  config: ml_collections.ConfigDict, num_examples: int, steps_share_inputs: bool
) -> Plan:
  """Derives the plan from the configuration and the size of the training split.

  Raises:
    ConfigError: the split does not fill a batch, or the run has no step.
  """
  batch = config.global_batch_size
  if num_examples < batch:
    raise errors.ConfigError(
      'config.global_batch_size',
      batch,
      f'the training split has {num_examples} examples',
      f'use {num_examples} or fewer',
    )
  steps_per_epoch = num_examples // batch
  total_steps = round(config.num_epochs * steps_per_epoch)
  if total_steps < 1:
    raise errors.ConfigError(
      'config.num_epochs',
      config.num_epochs,
      f'no step: an epoch has {steps_per_epoch}',
      f'use {1 / steps_per_epoch:g} or more',
    )
  return Plan(steps_per_epoch, total_steps, steps_per_execution(config, steps_share_inputs))


def steps_per_execution(config: ml_collections.ConfigDict, steps_share_inputs: bool) -> int:
  """Returns the largest number of steps of a call of the device, see `steps.make_multi_step`.

  Args:
    config: validated.
    steps_share_inputs: see `data.pipeline.Pipeline`; a stream hands over one step at a time.
  """
  if config.steps_per_execution:
    return config.steps_per_execution
  on_cpu = jax.default_backend() == 'cpu'
  return _STEPS_PER_EXECUTION if steps_share_inputs and not on_cpu else 1


def evaluates(config: ml_collections.ConfigDict, plan: Plan, step: int) -> bool:
  """Returns whether the test split is evaluated after `step` steps."""
  return plan.is_due(step, config.eval.every_epochs)


def saves(config: ml_collections.ConfigDict, plan: Plan, step: int) -> bool:
  """Returns whether a checkpoint is taken after `step` steps."""
  every_steps = config.checkpoint.every_steps
  in_interval = bool(every_steps) and step % every_steps == 0
  return in_interval or plan.is_due(step, config.checkpoint.every_epochs)
