"""Evaluates a network on a split: every example counts once, whatever the batch and the devices."""

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

# Batches the host may be ahead of the device; without a limit a stream would pile up in memory.
_RUN_AHEAD = 4


class Evaluator:
  """Evaluates variables on one split, as often as it is called."""

  def __init__(
    self,
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
  ):
    """Compiles and reads nothing yet.

    Args:
      model: maps images to logits.
      split: opened for evaluation, and loaded before the first call.
      mean: per channel, on the scale 0..255.
      std: per channel, on the scale 0..255.
      batch_size: examples of a batch, over all devices.
      batch_field: what the user calls the batch's size.
      by_class: count for each class too.
      stop: asked between batches whether to give up.
      report_progress: called at the start, and as batches are done.
    """
    eval_step = steps.make_eval_step(
      model,
      fetch_batch=split.fetch_batch,
      normalize=lambda images: augment.evaluation_views(images, mean, std),
    )
    num_devices = jax.device_count()
    self._eval_step = device_memory.explain_out_of_memory(
      devices.map_devices(eval_step, donate=(2,)),
      batch_field,
      batch_size,
      lambda size: size % num_devices == 0,
    )
    self._split, self._stop, self._report_progress = split, stop, report_progress
    self._num_classes = len(split.class_names) if by_class else 0
    self._batches_read = 0  # Over all calls, because a stream goes round and round.

  def __call__(self, variables: Tree) -> dict[str, Any]:
    """Evaluates the network with these variables.

    Args:
      variables: 'params' and 'batch_stats', replicated.

    Returns:
      'loss' in nats, 'error' and 'error_top5' as fractions, 'correct' and 'count' as whole
      numbers, and with `by_class` what `metrics.class_sums` gives; {} if it was stopped.
    """
    carry = devices.replicate(steps.start_evaluation(self._num_classes))
    self._report_progress()
    for number in range(self._split.num_batches):
      if self._stop():
        return {}
      try:
        inputs = self._split.inputs(self._batches_read)
      except stream.Stopped:
        return {}
      carry = self._eval_step(variables, inputs, carry)
      self._batches_read += 1
      if number % _RUN_AHEAD == 0:
        jax.block_until_ready(carry)
        self._report_progress()
    return summarize(devices.read_back(carry['sums']))


def of_test_split(job: Setup) -> Evaluator:
  """Returns the evaluator of a run's test split, which a request to stop ends early."""
  return Evaluator(
    job.model,
    job.test,
    mean=job.config.data.mean,
    std=job.config.data.std,
    batch_size=job.config.eval.batch_size,
    stop=job.control.stop_requested,
    report_progress=lambda: job.control.report('in an evaluation'),
  )


def variables_of(state: steps.TrainState) -> Tree:
  """Returns the part of a state that the network is applied with."""
  return {'params': state.params, 'batch_stats': state.batch_stats}


def summarize(sums: dict[str, np.ndarray]) -> dict[str, Any]:
  """Returns means and whole numbers from the sums of an evaluation."""
  by_class = {name: value for name, value in sums.items() if np.ndim(value)}
  counts = {'correct': int(sums['correct']), 'count': int(sums['count'])}
  means = metrics.summarize({name: float(sums[name]) for name in sums if name not in by_class})
  return {**means, **counts, **by_class}
