"""Measures the memory of a training step, by the compiler's plan and by the system's count."""

from __future__ import annotations

import resource
from typing import Any

import jax
import ml_collections
import numpy as np

from bitnet_jax.benchmarks.network import Case
from bitnet_jax.distributed import devices


def measure(config: ml_collections.ConfigDict) -> dict[str, Any]:
  """Compiles a step, takes the step twice and reads the counters.

  Args:
    config: the network, its type and the batch.

  Returns:
    A JSON object, in bytes: 'arguments' and 'temporary' of the compiled step on a device; 'peak'
    of the device's allocator, None where the allocator keeps no count; 'resident', the process's
    largest size.
  """
  case = Case(config)
  state, inputs = devices.replicate(case.state), case.inputs()
  count = devices.replicate(np.int32(1))
  compiled = case.take_steps().lower(state, inputs, count).compile()  # type: ignore[attr-defined]
  analysis = compiled.memory_analysis()
  del state
  run = case.side()
  for _ in range(2):
    run()
  statistics = jax.local_devices()[0].memory_stats() or {}
  return {
    'arguments': analysis.argument_size_in_bytes,
    'temporary': analysis.temp_size_in_bytes,
    'peak': statistics.get('peak_bytes_in_use'),
    'resident': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
  }
