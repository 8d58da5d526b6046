"""How many cores there are to work with."""

from __future__ import annotations

import os


def available() -> int:
  """Cores that this process may use, where the system says so; else those of the machine."""
  if hasattr(os, 'sched_getaffinity'):  # Fewer under taskset or in a cpuset; a quota does not show.
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1
