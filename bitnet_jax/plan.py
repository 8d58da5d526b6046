"""How long a run is, and what is due after which step."""

from __future__ import annotations

import dataclasses

import ml_collections

from bitnet_jax import errors


@dataclasses.dataclass(frozen=True)
class Plan:
  """How long a run is.

  Attributes:
    steps_per_epoch: whole batches of the training split.
    total_steps: of the run.
  """

  steps_per_epoch: int
  total_steps: int

  def ends_epoch(self, step: int) -> bool:
    """Whether an epoch, or the run, is over after `step` steps."""
    return step % self.steps_per_epoch == 0 or step == self.total_steps

  def is_due(self, step: int, every_epochs: int) -> bool:
    """Whether what happens every so many epochs, and at the end, happens after `step` steps."""
    if step == self.total_steps:
      return True
    epoch, rest = divmod(step, self.steps_per_epoch)
    return bool(every_epochs) and rest == 0 and epoch % every_epochs == 0


def make_plan(config: ml_collections.ConfigDict, num_examples: int) -> Plan:
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
  return Plan(steps_per_epoch, total_steps)


def evaluates(config: ml_collections.ConfigDict, plan: Plan, step: int) -> bool:
  """Whether the test split is evaluated after `step` steps."""
  return plan.is_due(step, config.eval.every_epochs)


def saves(config: ml_collections.ConfigDict, plan: Plan, step: int) -> bool:
  """Whether a checkpoint is taken after `step` steps."""
  every_steps = config.checkpoint.every_steps
  in_interval = bool(every_steps) and step % every_steps == 0
  return in_interval or plan.is_due(step, config.checkpoint.every_epochs)


def count_steps(config: ml_collections.ConfigDict, plan: Plan, step: int, most: int) -> int:
  """How many steps after `step` come before the host has something to do, `most` at most.

  It logs, saves, evaluates, and hands over the order of the next epoch.
  """
  for end in range(step + 1, step + most):
    if end % config.log.every_steps == 0 or plan.ends_epoch(end) or saves(config, plan, end):
      return end - step
  return most
