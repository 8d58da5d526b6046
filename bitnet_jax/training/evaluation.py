"""One exact pass over a split: every example counts once, whatever the batch and device count."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from bitnet_jax.data.batches import stream
from bitnet_jax.data.images import augment
from bitnet_jax.data.pipeline import Pipeline
from bitnet_jax.distributed import devices
from bitnet_jax.training import device_memory, metrics, steps
from bitnet_jax.training.setup import Setup

Tree = Any

# Batches the host may be ahead of the device: what streams in would else pile up there.
_RUN_AHEAD = 4


def make_evaluator(
  model: nn.Module,
  split: Pipeline,
  *,
  mean: Sequence[float],
  std: Sequence[float],
  batch_size: int,
  batch_field: str = 'config.eval.batch_size',
  by_class: bool = False,
  stop: Callable[[], bool] = lambda: False,
  report_progress: Callable[[], None] = lambda: None,
) -> Callable[[Tree], dict[str, Any]]:
  """Compiles and reads nothing yet.

  Args:
    model: maps images to logits.
    split: opened for evaluation, and loaded.
    mean: per channel, on the scale 0..255.
    std: per channel, on the scale 0..255.
    batch_size: examples of a batch, over all devices.
    batch_field: what the user calls it.
    by_class: count for each class too.
    stop: asked between batches whether to give up.
    report_progress: called at the start, and as batches are done.

  Returns:
    `evaluate(variables)`, of replicated 'params' and 'batch_stats', which gives 'loss' in nats,
    'error' and 'error_top5' as fractions, 'correct' and 'count' as whole numbers, and with
    `by_class` what `metrics.class_sums` gives; or {} if it was stopped.
  """
  eval_step = devices.map_devices(
    steps.make_eval_step(
      model,
      fetch_batch=split.fetch_batch,
      normalize=lambda images: augment.evaluation_views(images, mean, std),
    ),
    donate=(2,),
  )
  num_devices = jax.device_count()
  eval_step = device_memory.explain_out_of_memory(
    eval_step, batch_field, batch_size, lambda size: size % num_devices == 0
  )
  num_classes = len(split.class_names) if by_class else 0
  read = 0  # Batches, over all evaluations: a stream goes round and round.

  def evaluate(variables: Tree) -> dict[str, Any]:
    nonlocal read
    carry = devices.replicate(steps.start_evaluation(num_classes))
    report_progress()
    for number in range(split.num_batches):
      if stop():
        return {}
      try:
        inputs = split.inputs(read)
      except stream.Stopped:
        return {}
      carry = eval_step(variables, inputs, carry)
      read += 1
      if number % _RUN_AHEAD == 0:
        jax.block_until_ready(carry)
        report_progress()
    return summarize(devices.read_back(carry['sums']))

  return evaluate


def evaluate_during_training(job: Setup) -> Callable[[Tree], dict[str, Any]]:
  """Returns the evaluation of a run's test split, which a request to stop ends early."""
  return make_evaluator(
    job.model,
    job.test,
    mean=job.config.data.mean,
    std=job.config.data.std,
    batch_size=job.config.eval.batch_size,
    stop=job.control.stop_requested,
    report_progress=lambda: job.control.report('in an evaluation'),
  )


def variables_of(state: steps.TrainState) -> Tree:
  """What the network is applied with."""
  return {'params': state.params, 'batch_stats': state.batch_stats}


def summarize(sums: dict[str, np.ndarray]) -> dict[str, Any]:
  """Means and whole numbers out of the sums of an evaluation."""
  by_class = {name: value for name, value in sums.items() if np.ndim(value)}
  counts = {'correct': int(sums['correct']), 'count': int(sums['count'])}
  return {
    **metrics.summarize({k: float(sums[k]) for k in sums if k not in by_class}),
    **counts,
  } | by_class
