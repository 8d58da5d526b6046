"""Reaches two parts of JAX's support for clusters that have no public name; no other file does.

- The detection of Slurm, Open MPI, Kubernetes and TPU pods: `jax.distributed.initialize` detects
  them too, but its coordinator then listens on all interfaces.
- The client of the coordination service, through which processes exchange keys: multihost_utils,
  Orbax and Flax use it, and no public function returns it.
"""

from __future__ import annotations

from typing import Any

_TIMEOUT_SECONDS = 300


def detect_cluster(num_processes: int, process_id: int) -> tuple[str | None, Any, Any, Any]:
  """Returns address, number of processes, this one's number and its devices; None if not found.

  Args:
    num_processes: of the cluster; 0 to detect it.
    process_id: of this process; -1 to detect it.
  """
  from jax._src import clusters

  return clusters.ClusterEnv.auto_detect_unset_distributed_params(
    None,
    num_processes or None,
    process_id if process_id >= 0 else None,
    None,
    None,
    _TIMEOUT_SECONDS,
  )


def coordinator_client() -> Any:
  """Returns the client of the coordination service that this process has joined."""
  from jax._src import distributed

  return distributed.global_state.client
