"""Times the sides of a comparison in turns, and describes the machine, for all benchmarks."""

from __future__ import annotations

import operator
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax

from bitnet_jax.logs import run_info
from bitnet_jax.runtime import host

# A side of a comparison: does the work once and returns the seconds that it took.
Side = Callable[[], float]

# Seconds between two sides. Threads of another process that wait awake for its next kernel
# (PyTorch's, onnxruntime's) keep their cores for some hundredths of a second.
_REST = 0.1


def seconds_of(function: Callable[[], Any], count: int = 1) -> float:
  """Returns the seconds of `count` calls, until the arrays of the last call are computed."""
  start = time.perf_counter()
  for _ in range(count):
    result = function()
  jax.block_until_ready(result)
  return time.perf_counter() - start


def in_turns(sides: Mapping[str, Side], rounds: int, warm_up: int = 2) -> dict[str, list[float]]:
  """Returns the seconds of each side in each round; the sides of a round run one after the other.

  Args:
    sides: the sides, by name.
    rounds: number of rounds that count.
    warm_up: number of rounds before them.
  """
  seconds: dict[str, list[float]] = {name: [] for name in sides}
  for _ in range(warm_up + rounds):
    for name, side in sides.items():
      time.sleep(_REST)
      seconds[name].append(side())
  return {name: values[warm_up:] for name, values in seconds.items()}


def summary(seconds: list[float], work: float = 0.0) -> dict[str, float]:
  """Returns median, least and range of the middle half, in seconds, and the work in a second."""
  low, median, high = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else seconds * 3
  result = {'median': median, 'least': min(seconds), 'spread': high - low}
  return {**result, 'per_second': work / median} if work else result


def ratio(ours: list[float], theirs: list[float]) -> dict[str, float]:
  """Returns how much faster ours is, from the rounds taken as pairs: median and middle half."""
  low, median, high = statistics.quantiles(map(operator.truediv, theirs, ours), n=4)
  return {'median': median, 'low': low, 'high': high, 'least_times': min(theirs) / min(ours)}


def conditions() -> dict[str, Any]:
  """Returns machine, versions and load, as a JSON object."""
  packages = run_info.environment()['packages']
  return {
    **{name: packages[name] for name in ('jax', 'jaxlib', 'onednn-cpu-gomp')},
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
