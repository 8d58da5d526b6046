"""Sets Orbax up: which checkpoints it keeps, and in which process of several it works."""

from __future__ import annotations

from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

# Ranks below every evaluated checkpoint. Orbax loses the best one when a metric is missing or NaN.
NOT_EVALUATED = 2.0


def primary_options() -> ocp.options.MultiprocessingOptions:
  """Returns options with which Orbax works in the primary process without waiting for others."""
  if jax.process_count() == 1:
    return ocp.options.MultiprocessingOptions()
  return ocp.options.MultiprocessingOptions(
    primary_host=0, active_processes={0}, barrier_sync_key_prefix='first'
  )


def manager_options(keep_latest: int, keep_best: int) -> ocp.CheckpointManagerOptions:
  """Keeps the newest and those of least test error; saves in the background.

  Args:
    keep_latest: at least 2 are kept, because Orbax deletes the old ones before a new one has its
      manifest.
    keep_best: 0 for none.
  """
  policies: list[Any] = [checkpoint_managers.LatestN(max(keep_latest, 2))]
  if keep_best:
    policies.append(checkpoint_managers.BestN(get_metric_fn=_accuracy, n=keep_best))
  return ocp.CheckpointManagerOptions(
    best_fn=_accuracy,
    best_mode='max',
    preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
    enable_async_checkpointing=True,
    cleanup_tmp_directories=True,
    create=False,
    multiprocessing_options=primary_options(),
  )


def _accuracy(metrics: dict[str, float]) -> float:
  return -metrics['error']
