"""The learning rate's schedule and SGD as Torch computes it, as an optax chain."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax


def drop_steps(drop_epochs: Sequence[int], steps_per_epoch: int) -> tuple[int, ...]:
  """Steps, counted from 0, at which the epochs of `drop_epochs`, counted from 1, begin."""
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
  """The learning rate as a function of the step, counted from 0.

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
    return jnp.asarray(base(step) * warm, jnp.float32)

  return rate


def make_optimizer(
  schedule: optax.Schedule,
  *,
  momentum: float,
  nesterov: bool,
  weight_decay: float,
  reset_momentum_steps: Sequence[int] = (),
) -> optax.GradientTransformation:
  """Torch's SGD: L2 decay on every parameter, momentum without dampening, then the rate.

  With g = gradient + weight_decay * w and v = momentum * v + g, the update is
  w -= rate * (g + momentum * v) with Nesterov's form and w -= rate * v without.

  Args:
    schedule: rate by step.
    momentum: share of the buffer kept at a step.
    nesterov: whether to look ahead.
    weight_decay: L2 factor, on batch norm's parameters and biases too.
    reset_momentum_steps: steps before which the buffer is cleared (the Wide ResNet code, at each
      drop); () for never, as in the paper.

  Returns:
    As an optax chain of decay, trace and rate would, with its state. Each parameter is a call of a
    jitted function, which is traced once for all of the same shape.

  Source:
    Section 4; Torch's `optim.sgd` with dampening 0.
  """
  boundaries = np.asarray(reset_momentum_steps, np.int32)

  def init(params):
    trace = optax.trace(momentum, nesterov).init(params)
    count = jnp.zeros((), jnp.int32)
    counted = (count, trace) if reset_momentum_steps else trace
    return optax.EmptyState(), counted, optax.ScaleByScheduleState(count)

  @jax.jit
  def move(gradient, buffer, param, factor, keep):
    if weight_decay:
      gradient = gradient + weight_decay * param
    if keep is not None:
      buffer = buffer * keep
    buffer = gradient + momentum * buffer
    return factor * (gradient + momentum * buffer if nesterov else buffer), buffer

  def update(gradients, state, params=None):
    decay, trace, rate = state
    keep = None
    if reset_momentum_steps:
      count, trace = trace
      keep = 1.0 - jnp.any(count == boundaries).astype(jnp.float32)
    # Else XLA computes the schedule once more in each parameter's loop: a fifth of the program.
    factor = lax.optimization_barrier(-schedule(rate.count))
    leaves, structure = jax.tree.flatten(gradients)
    others = jax.tree.leaves(trace.trace), jax.tree.leaves(params)
    moved = [move(*of_one, factor, keep) for of_one in zip(leaves, *others, strict=True)]
    updates, buffers = (jax.tree.unflatten(structure, part) for part in zip(*moved, strict=True))
    trace = optax.TraceState(buffers)
    counted = (count + 1, trace) if reset_momentum_steps else trace
    next_rate = optax.ScaleByScheduleState(optax.safe_increment(rate.count))
    return updates, (decay, counted, next_rate)

  return optax.GradientTransformation(init, update)
