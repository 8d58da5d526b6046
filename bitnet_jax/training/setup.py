"""Makes the optimizer that a configuration describes."""

from __future__ import annotations

import ml_collections
import optax

from bitnet_jax.training import optim
from bitnet_jax.training.plan import Plan


def make_optimizer(
  config: ml_collections.ConfigDict, plan: Plan
) -> tuple[optax.GradientTransformation, optax.Schedule]:
  """The optax chain of a configuration and its learning rate by step."""
  optim_config = config.optim
  schedule = optim.make_schedule(
    schedule=optim_config.schedule,
    learning_rate=optim_config.learning_rate,
    drop_epochs=optim_config.drop_epochs,
    drop_factor=optim_config.drop_factor,
    warmup_epochs=optim_config.warmup_epochs,
    steps_per_epoch=plan.steps_per_epoch,
    total_steps=plan.total_steps,
  )
  resets = optim_config.drop_epochs if optim_config.reset_momentum_at_drop else ()
  optimizer = optim.make_optimizer(
    schedule,
    momentum=optim_config.momentum,
    nesterov=optim_config.nesterov,
    weight_decay=optim_config.weight_decay,
    reset_momentum_steps=optim.drop_steps(resets, plan.steps_per_epoch),
  )
  return optimizer, schedule
