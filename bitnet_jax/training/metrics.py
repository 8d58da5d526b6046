"""Computes loss and error as sums, so that any batch and device count gives the same mean."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

Sums = dict[str, Any]  # of scalars: jax.Array, or np.ndarray before the first step

CLASS_SUMS = ('class_count', 'class_correct', 'class_correct_top5')


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
  """Returns the softmax cross-entropy of each example, in nats.

  Args:
    logits: `[batch, classes]`.
    labels: `[batch]`, int32.

  Returns:
    `[batch]`, float32.
  """
  # optax's form subtracts logits after the sum of exponentials, and so rounds where they are large.
  log_shares = jax.nn.log_softmax(logits.astype(jnp.float32))
  return -jnp.take_along_axis(log_shares, labels[:, None], axis=-1)[:, 0]


def in_top_k(logits: jax.Array, labels: jax.Array, k: int) -> jax.Array:
  """Returns whether each label is among the k largest logits, `[batch]`, bool.

  A tie counts against the example, and so does a NaN: a network whose logits are all alike is
  never right.
  """
  own = jnp.take_along_axis(logits, labels[:, None], axis=-1)
  others = jnp.arange(logits.shape[-1]) != labels[:, None]
  at_least = jnp.sum(others & ~(logits < own), axis=-1)
  return at_least < k


def batch_sums(logits: jax.Array, labels: jax.Array, mask: jax.Array) -> Sums:
  """Returns sums over the examples that `mask` marks.

  Args:
    logits: `[batch, classes]`.
    labels: `[batch]`, int32.
    mask: `[batch]`, 1 for an example, 0 for padding.

  Returns:
    'loss', 'correct', 'correct_top5' and 'count', float32 scalars (exact to 2**24 examples).
  """
  mask = mask.astype(jnp.float32)
  losses = jnp.where(mask > 0, cross_entropy(logits, labels), 0.0)
  return {
    'loss': jnp.sum(losses),
    'correct': jnp.sum(in_top_k(logits, labels, 1) * mask),
    'correct_top5': jnp.sum(in_top_k(logits, labels, 5) * mask),
    'count': jnp.sum(mask),
  }


def class_sums(logits: jax.Array, labels: jax.Array, mask: jax.Array) -> Sums:
  """Returns counts for each class, over the examples that `mask` marks.

  Args:
    logits: `[batch, classes]`.
    labels: `[batch]`, int32.
    mask: `[batch]`, 1 for an example, 0 for padding.

  Returns:
    `CLASS_SUMS`, `[classes]`, and 'confusion' `[classes, classes]` by label and prediction; int32.
  """
  mask = mask.astype(jnp.int32)
  classes = logits.shape[-1]

  def by_label(values: jax.Array) -> jax.Array:
    return jnp.zeros(classes, jnp.int32).at[labels].add(values.astype(jnp.int32) * mask)

  predicted = jnp.argmax(logits, axis=-1)
  correct, correct_top5 = in_top_k(logits, labels, 1), in_top_k(logits, labels, 5)
  return {
    'class_count': by_label(jnp.ones_like(mask)),
    'class_correct': by_label(correct),
    'class_correct_top5': by_label(correct_top5),
    'confusion': jnp.zeros((classes, classes), jnp.int32).at[labels, predicted].add(mask),
  }


def summarize(sums: dict[str, float]) -> dict[str, float]:
  """Returns means from sums fetched from the device.

  Args:
    sums: what `batch_sums` gives, added up.

  Returns:
    'loss' in nats, 'error' and 'error_top5' as fractions.

  Raises:
    ValueError: no example was counted.
  """
  count = float(sums['count'])
  if count <= 0:
    raise ValueError('no example was counted')
  return {
    'loss': float(sums['loss']) / count,
    'error': 1.0 - float(sums['correct']) / count,
    'error_top5': 1.0 - float(sums['correct_top5']) / count,
  }
