"""Timing of things in turns, and what a timing was taken on."""

from __future__ import annotations

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from bitnet_jax.logs import run_info
from bitnet_jax.runtime import host

# A side of a comparison: does the work once and says how many seconds it took.
Side = Callable[[], float]

# Seconds between two sides. Threads of another process that wait awake for its next kernel
# (PyTorch's, onnxruntime's) keep their cores for some hundredths.
_REST = 0.1


def in_turns(sides: Mapping[str, Side], rounds: int, warm_up: int = 2) -> dict[str, list[float]]:
  """Seconds of each side in each round; within a round one side runs after the other, rested.

  Args:
    sides: by name.
    rounds: measured ones.
    warm_up: rounds before, which count for nothing.
  """
  seconds: dict[str, list[float]] = {name: [] for name in sides}
  for number in range(warm_up + rounds):
    for name, side in sides.items():
      time.sleep(_REST)
      took = side()
      if number >= warm_up:
        seconds[name].append(took)
  return seconds


def summary(seconds: list[float], work: float = 0.0) -> dict[str, float]:
  """Median, least, and the range of the middle half, in seconds; work done in a second."""
  ordered = sorted(seconds)
  quartiles = statistics.quantiles(ordered, n=4) if len(ordered) > 1 else [ordered[0]] * 3
  median = statistics.median(ordered)
  result = {'median': median, 'least': ordered[0], 'spread': quartiles[2] - quartiles[0]}
  return {**result, 'per_second': work / median} if work else result


def ratio(ours: list[float], theirs: list[float]) -> dict[str, float]:
  """How much faster ours is, from the rounds taken as pairs: median and the middle half."""
  pairs = sorted(other / own for own, other in zip(ours, theirs, strict=True))
  low, middle, high = statistics.quantiles(pairs, n=4)
  return {'median': middle, 'low': low, 'high': high, 'least_times': min(theirs) / min(ours)}


def conditions() -> dict[str, Any]:
  """Machine, versions and load, as a JSON object."""
  environment = run_info.environment()
  packages = {name: environment['packages'][name] for name in ('jax', 'jaxlib', 'onednn-cpu-gomp')}
  return {
    **packages,
    'python': platform.python_version(),
    'device': jax.devices()[0].device_kind,
    'devices': jax.device_count(),
    'processor': _processor(),
    'cores': host.available_cores(),
    'load': os.getloadavg()[0],
  }


def _processor() -> str:
  try:
    with open('/proc/cpuinfo') as file:
      return next(line.split(':')[1].strip() for line in file if line.startswith('model name'))
  except (OSError, StopIteration):
    return platform.processor()
