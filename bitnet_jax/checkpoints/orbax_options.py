"""Configures Orbax: which checkpoints it keeps, and which process of a cluster runs it."""

from __future__ import annotations

from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

# Error of a step that was not evaluated, worse than any: a missing or NaN metric would make Orbax
# lose its best checkpoint.
NOT_EVALUATED = 2.0


def primary_options() -> ocp.options.MultiprocessingOptions:
  """Returns options with which the primary process uses Orbax alone, without barriers."""
  if jax.process_count() == 1:
    return ocp.options.MultiprocessingOptions()
  return ocp.options.MultiprocessingOptions(
    primary_host=0, active_processes={0}, barrier_sync_key_prefix='first'
  )


def manager_options(keep_latest: int, keep_best: int) -> ocp.CheckpointManagerOptions:
  """Returns options that keep the newest and the best checkpoints, and save in the background.

  Args:
    keep_latest: number of newest checkpoints; at least 2 are kept, because Orbax deletes old
      checkpoints before a new one has its manifest.
    keep_best: number of checkpoints of smallest test error; 0 for none.
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
