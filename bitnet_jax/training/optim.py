"""Makes the learning rate's schedule, and SGD as Torch computes it, as an optax chain."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax


def drop_steps(drop_epochs: Sequence[int], steps_per_epoch: int) -> tuple[int, ...]:
  """Returns the steps, counted from 0, at which epochs, counted from 1, begin.

  >>> drop_steps((61, 121), steps_per_epoch=390)
  (23400, 46800)
  """
  return tuple((epoch - 1) * steps_per_epoch for epoch in drop_epochs)


def depends_on_length(schedule: str) -> bool:
  """Returns whether a schedule's rate at every step depends on the length of the run."""
  return schedule == 'cosine'


def make_schedule(
  *,
  schedule: str,
  learning_rate: float,
  drop_epochs: Sequence[int],
  drop_factor: float,
  warmup_epochs: float,
  steps_per_epoch: int,
  total_steps: int,
) -> optax.Schedule:
  """Returns the learning rate as a function of the step, counted from 0.

  'step' gives `learning_rate * drop_factor ** k` after the k-th drop, 'cosine'
  `learning_rate * (1 + cos(pi * step / total_steps)) / 2`; a warm-up multiplies either with
  `min((step + 1) / (warmup_epochs * steps_per_epoch), 1)`.

  >>> rate = make_schedule(schedule='step', learning_rate=0.1, drop_epochs=(3,), drop_factor=0.2,
  ...                      warmup_epochs=0.5, steps_per_epoch=4, total_steps=12)
  >>> [round(float(rate(step)), 3) for step in (0, 1, 7, 8)]
  [0.05, 0.1, 0.1, 0.02]

  Args:
    schedule: 'step', a drop at the start of each of `drop_epochs`, or 'cosine', to zero.
    learning_rate: the rate before the first drop, after the warm-up.
    drop_epochs: epochs counted from 1.
    drop_factor: what a drop multiplies the rate with.
    warmup_epochs: length of a linear rise from 0 that scales whatever the schedule says; the
      drops stay where they are.
    steps_per_epoch: steps of an epoch.
    total_steps: where the cosine ends.

  Returns:
    `schedule(step)`, float32.

  Raises:
    ValueError: no such schedule.

  Source:
    Section 4.1: lr 0.1, times 0.2 at epochs 60, 120, 160; section 4.2: times 0.1 every 30 epochs.
  """
  if schedule == 'step':
    boundaries = dict.fromkeys(drop_steps(drop_epochs, steps_per_epoch), drop_factor)
    base = optax.piecewise_constant_schedule(learning_rate, boundaries)
  elif schedule == 'cosine':
    base = optax.cosine_decay_schedule(learning_rate, max(total_steps, 1))
  else:
    raise ValueError(f'schedule {schedule!r} is not known; use step or cosine')
  warmup_steps = warmup_epochs * steps_per_epoch

  def rate(step: jax.Array) -> jax.Array:
    warm = jnp.minimum((step + 1) / warmup_steps, 1.0) if warmup_steps else 1.0
    # Without the barrier XLA computes the rate once more in each parameter's loop, which makes the
    # program of (4,3,4) a fifth longer.
    return lax.optimization_barrier(jnp.asarray(base(step) * warm, jnp.float32))

  return rate


def make_optimizer(
  schedule: optax.Schedule,
  *,
  momentum: float,
  nesterov: bool,
  weight_decay: float,
  reset_momentum_steps: Sequence[int] = (),
) -> optax.GradientTransformation:
  """Returns Torch's SGD: L2 decay on every parameter, momentum without dampening, then the rate.

  With `g = gradient + weight_decay * w` and `v = momentum * v + g`, the update is
  `w -= rate * (g + momentum * v)` in Nesterov's form and `w -= rate * v` without.

  >>> sgd = make_optimizer(lambda step: 0.5, momentum=0.9, nesterov=True, weight_decay=0.0)
  >>> update, _ = sgd.update(jnp.float32(1.0), sgd.init(jnp.float32(0.0)), jnp.float32(0.0))
  >>> round(float(update), 3)  # -0.5 * (1 + 0.9 * 1)
  -0.95

  Args:
    schedule: rate by step.
    momentum: share of the buffer kept at a step.
    nesterov: whether to look ahead.
    weight_decay: L2 factor, on batch norm's parameters and biases too.
    reset_momentum_steps: steps before which the buffer is cleared (the Wide ResNet code, at each
      drop); () for never, as in the paper.

  Source:
    Section 4; Torch's `optim.sgd` with dampening 0.
  """
  trace = optax.trace(momentum, nesterov)
  if reset_momentum_steps:
    trace = _reset_before(trace, reset_momentum_steps)
  return optax.chain(
    optax.add_decayed_weights(weight_decay), trace, optax.scale_by_learning_rate(schedule)
  )


def _reset_before(
  trace: optax.GradientTransformation, steps: Sequence[int]
) -> optax.GradientTransformation:
  """Returns a momentum whose buffer is cleared before some steps; its state counts the steps."""
  boundaries = np.asarray(steps, np.int32)

  def init(params: optax.Params) -> tuple[jax.Array, optax.OptState]:
    return jnp.zeros((), jnp.int32), trace.init(params)

  def update(updates, state, params=None):
    count, buffers = state
    keep = 1.0 - jnp.any(count == boundaries).astype(jnp.float32)
    buffers = jax.tree.map(lambda buffer: buffer * keep, buffers)
    updates, buffers = trace.update(updates, buffers, params)
    return updates, (count + 1, buffers)

  return optax.GradientTransformation(init, update)
