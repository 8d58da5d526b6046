"""One exact pass over a split: every example counts once, whatever the batch and device count."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from bitnet_jax import metrics, parallel, steps
from bitnet_jax.data import augment, resident

Tree = Any


def make_evaluator(
  model: nn.Module,
  images: np.ndarray,
  labels: np.ndarray,
  *,
  batch_size: int,
  mean: Sequence[float],
  std: Sequence[float],
) -> Callable[[Tree], dict[str, float]]:
  """Puts a split on the devices and compiles nothing yet.

  Args:
    model: maps images to logits.
    images: `[examples, height, width, channels]`, uint8.
    labels: `[examples]`, int32.
    batch_size: examples of a step, over all devices.
    mean: per channel, on the scale 0..255.
    std: per channel, on the scale 0..255.

  Returns:
    `evaluate(variables)`, of replicated 'params' and 'batch_stats', which gives 'loss' in nats,
    'error' and 'error_top5' as fractions, 'correct' and 'count' as whole numbers.
  """
  order = resident.evaluation_order(len(labels), batch_size, jax.device_count())
  inputs = {
    **parallel.replicate({'image': images, 'label': labels}),
    'order': parallel.scatter(order),
  }
  eval_step = parallel.map_devices(
    steps.make_eval_step(
      model,
      fetch_batch=resident.fetch_batch,
      normalize=lambda batch: augment.normalize(batch, mean, std),
    ),
    donate=(2,),
  )

  def evaluate(variables: Tree) -> dict[str, float]:
    carry = parallel.replicate(steps.start_evaluation())
    for _ in range(order.shape[1]):
      carry = eval_step(variables, inputs, carry)
    sums = parallel.read_back(carry['sums'])
    counts = {'correct': int(sums['correct']), 'count': int(sums['count'])}
    return {**metrics.summarize(sums), **counts}

  return evaluate
