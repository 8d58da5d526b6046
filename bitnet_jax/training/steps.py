"""Defines the training state and how one step changes it: pure functions of arrays.

The functions see what one device holds and are mapped over the devices by `devices.map_devices`;
they know nothing of data sets, files or configurations.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

from bitnet_jax.data import types
from bitnet_jax.distributed import devices
from bitnet_jax.models import initialize
from bitnet_jax.training import metrics

Tree = Any
# Steps in a row of too large a loss after which a run is taken to have diverged.
DIVERGED = 100
# Name of the first convolution, whose gradient's norm is recorded (Figure 2).
STEM = 'stem_conv'


@flax.struct.dataclass
class TrainState:
  """Holds all that a run changes; what a checkpoint saves.

  Attributes:
    step: steps taken, int32 scalar.
    params: float32.
    batch_stats: running averages of batch norm, float32.
    opt_state: of the optax chain.
    interval_sums: sums over the steps since the last multiple of the logging interval.
    epoch_sums: sums over the steps of the epoch so far.
    diverging: steps in a row whose loss was too large, int32 scalar; see `DIVERGED`.
  """

  step: Any
  params: Tree
  batch_stats: Tree
  opt_state: Tree
  interval_sums: metrics.Sums
  epoch_sums: metrics.Sums
  diverging: Any


def zero_sums() -> metrics.Sums:
  """Returns the sums over no step."""
  names = ('loss', 'correct', 'correct_top5', 'count', 'stem_gradient_norm', 'steps')
  return {name: np.zeros((), np.float32) for name in names}


def create_state(
  model: nn.Module,
  optimizer: optax.GradientTransformation,
  seed: int,
  image_shape: tuple[int, ...],
) -> TrainState:
  """Returns a state before the first step, as NumPy arrays.

  Parameters are always drawn on the host's CPU, with a generator that compiles fast, so that a
  seed means the same network on every kind of device.

  Args:
    model: maps images to logits.
    optimizer: the optax chain.
    seed: of the parameters.
    image_shape: (height, width, channels).
  """
  with jax.default_device(jax.local_devices(backend='cpu')[0]):
    variables = initialize.initialize(model, seed, image_shape)
  state = _fresh_state(variables, optimizer)
  # What the optimizer begins with are zeros; to compute them would take a program.
  zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), state.opt_state)
  return dataclasses.replace(state, opt_state=zeros)


def state_shapes(
  model: nn.Module, optimizer: optax.GradientTransformation, image_shape: tuple[int, ...]
) -> TrainState:
  """Returns the shapes of what `create_state` gives; nothing is drawn."""
  return _fresh_state(initialize.shapes(model, image_shape), optimizer)


def _fresh_state(variables: Tree, optimizer: optax.GradientTransformation) -> TrainState:
  """Returns a state whose optimizer's part is shapes alone."""
  return TrainState(
    step=np.zeros((), np.int32),
    params=variables['params'],
    batch_stats=variables.get('batch_stats', {}),
    opt_state=jax.eval_shape(optimizer.init, variables['params']),
    interval_sums=zero_sums(),
    epoch_sums=zero_sums(),
    diverging=np.zeros((), np.int32),
  )


def _make_gradient(model: nn.Module) -> Callable[..., tuple[Tree, tuple[jax.Array, Tree]]]:
  """Returns the gradient of the mean loss, with the logits and the moved averages."""

  def loss_and_logits(
    params: Tree, state: TrainState, images: jax.Array, labels: jax.Array
  ) -> tuple[jax.Array, tuple[jax.Array, Tree]]:
    variables = {'params': params, 'batch_stats': state.batch_stats}
    logits, updated = model.apply(variables, images, train=True, mutable=['batch_stats'])
    return metrics.cross_entropy(logits, labels).mean(), (logits, updated.get('batch_stats', {}))

  return jax.grad(loss_and_logits, has_aux=True)


def make_train_step(
  model: nn.Module,
  optimizer: optax.GradientTransformation,
  schedule: optax.Schedule,
  *,
  fetch_batch: types.FetchBatch,
  augment: types.AugmentBatch,
  steps_per_epoch: int,
  log_every_steps: int,
) -> Callable[[TrainState, Tree], tuple[TrainState, Tree]]:
  """Builds the training step.

  Args:
    model: maps images to logits.
    optimizer: the optax chain.
    schedule: the learning rate by step, for the report.
    fetch_batch: picks the step's batch, this device's part, from what the loop hands over.
    augment: turns uint8 images into the network's input.
    steps_per_epoch: steps of an epoch.
    log_every_steps: length of the logging interval.

  Returns:
    `train_step(state, inputs)`, which gives the next state and a report: the sums of the interval
    and of the epoch with this step in them, the learning rate it was taken with, and for how many
    steps the loss has been too large.
  """
  gradient = _make_gradient(model)

  def train_step(state: TrainState, inputs: Tree) -> tuple[TrainState, Tree]:
    batch = fetch_batch(inputs, state.step % steps_per_epoch)
    labels = batch['label']
    images = augment(batch['image'], state.step, devices.global_positions(labels.shape[0]))
    grads, (logits, batch_stats) = gradient(state.params, state, images, labels)
    grads, batch_stats = devices.mean_over_devices((grads, batch_stats))
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)

    sums = devices.sum_over_devices(metrics.batch_sums(logits, labels, batch['mask']))
    # Of the loss alone, before weight decay: what Figure 2 averages over an epoch.
    sums['stem_gradient_norm'] = _stem_gradient_norm(grads)
    sums['steps'] = jnp.ones((), jnp.float32)
    interval_sums = _add_since(state.interval_sums, sums, state.step % log_every_steps == 0)
    epoch_sums = _add_since(state.epoch_sums, sums, state.step % steps_per_epoch == 0)
    learning_rate = schedule(state.step)
    loss = sums['loss'] / sums['count']
    state = TrainState(
      step=state.step + 1,
      params=jax.tree.map(lax.add, state.params, updates),
      batch_stats=batch_stats,
      opt_state=opt_state,
      interval_sums=interval_sums,
      epoch_sums=epoch_sums,
      diverging=_count_diverging(state.diverging, loss, logits.shape[-1]),
    )
    return state, _report(state, learning_rate)

  return train_step


def _stem_gradient_norm(grads: Tree) -> jax.Array:
  """Returns the L2 norm of the first convolution's gradient; NaN for a network without `STEM`."""
  if STEM not in grads:
    return jnp.full((), jnp.nan, jnp.float32)
  return jnp.sqrt(jnp.sum(jnp.square(grads[STEM]['kernel'])))


def _report(state: TrainState, learning_rate: jax.typing.ArrayLike) -> Tree:
  return {
    'interval': state.interval_sums,
    'epoch': state.epoch_sums,
    'learning_rate': jnp.asarray(learning_rate, jnp.float32),
    'diverging': state.diverging,
  }


def make_multi_step(
  train_step: Callable[[TrainState, Tree], tuple[TrainState, Tree]], max_count: int
) -> Callable[[TrainState, Tree, jax.Array], tuple[TrainState, Tree]]:
  """Makes one program of many steps, for devices that finish a step before the next can start.

  One program for every number of steps: a program for each number, as `lax.scan` would give, might
  round otherwise, and a run's bits would depend on what interrupted it.

  Args:
    train_step: of `make_train_step`.
    max_count: largest number of steps of a call. With 1 there is no loop, in which XLA's
      convolutions on a CPU would be slower.

  Returns:
    `take_steps(state, inputs, count)`, where count is an int32 scalar from 1 to `max_count`, which
    gives the state and the report of the last step; all take their batches from the same inputs.
  """
  if max_count == 1:
    return lambda state, inputs, _: train_step(state, inputs)

  def take_steps(state: TrainState, inputs: Tree, count: jax.Array) -> tuple[TrainState, Tree]:
    def body(_: jax.Array, carry: tuple[TrainState, jax.Array]) -> tuple[TrainState, jax.Array]:
      state, report = train_step(carry[0], inputs)
      return state, report['learning_rate']

    state, learning_rate = lax.fori_loop(0, count, body, (state, jnp.zeros((), jnp.float32)))
    return state, _report(state, learning_rate)

  return take_steps


def _count_diverging(before: jax.Array, loss: jax.Array, num_classes: int) -> jax.Array:
  """Counts steps in a row with a loss above ten times that of guessing; `DIVERGED` if it is NaN.

  Batch norm hides a rate that is far too high from every check for numbers that are not finite.
  """
  too_large = loss > 10 * jnp.log(jnp.float32(num_classes))
  count = jnp.where(too_large, before + 1, 0)
  count = jnp.where(jnp.isfinite(loss), count, DIVERGED)
  return jnp.where(before >= DIVERGED, before, count).astype(jnp.int32)


def _add_since(total: metrics.Sums, sums: metrics.Sums, restart: jax.Array) -> metrics.Sums:
  return jax.tree.map(lambda old, new: jnp.where(restart, 0.0, old) + new, total, sums)


def make_eval_step(
  model: nn.Module, *, fetch_batch: types.FetchBatch, normalize: Callable[[jax.Array], jax.Array]
) -> Callable[[Tree, Tree, Tree], Tree]:
  """Builds the evaluation step.

  Args:
    model: maps images to logits.
    fetch_batch: picks a batch, this device's part, from what the loop hands over.
    normalize: turns uint8 images into the network's input, one or more views of each side by
      side, whose logits are averaged.

  Returns:
    `eval_step(variables, inputs, carry)`, where carry is what `start_evaluation` gives; it counts
    the batches and adds up the sums over the examples that are no padding.
  """

  def eval_step(variables: Tree, inputs: Tree, carry: Tree) -> Tree:
    batch = fetch_batch(inputs, carry['batch'])
    logits: Any = model.apply(variables, normalize(batch['image']), train=False)
    logits = logits.reshape(batch['label'].shape[0], -1, logits.shape[-1]).mean(axis=1)
    sums = metrics.batch_sums(logits, batch['label'], batch['mask'])
    if 'confusion' in carry['sums']:
      sums |= metrics.class_sums(logits, batch['label'], batch['mask'])
    total = jax.tree.map(jnp.add, carry['sums'], devices.sum_over_devices(sums))
    return {'batch': carry['batch'] + 1, 'sums': total}

  return eval_step


def start_evaluation(num_classes: int = 0) -> Tree:
  """Returns the carry of an evaluation that has seen nothing, as NumPy arrays.

  Args:
    num_classes: classes to count apart; 0 for the sums over all alone.
  """
  names = ('loss', 'correct', 'correct_top5', 'count')
  sums: dict[str, np.ndarray] = {name: np.zeros((), np.float32) for name in names}
  if num_classes:
    sums |= {name: np.zeros(num_classes, np.int32) for name in metrics.CLASS_SUMS}
    sums['confusion'] = np.zeros((num_classes, num_classes), np.int32)
  return {'batch': np.zeros((), np.int32), 'sums': sums}
