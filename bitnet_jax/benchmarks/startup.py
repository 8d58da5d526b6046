"""Measures the time from the start of a process to its first step, with a cold and a warm cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

import ml_collections


def measure(config: ml_collections.ConfigDict, *, rounds: int) -> dict[str, Any]:
  """Starts processes one after the other, which share a cache of compiled programs.

  Args:
    config: the network.
    rounds: number of processes that start with a warm cache.

  Returns:
    A JSON object of seconds, for the first process ('cold') and the median one of those after it
    ('warm'): the total from start to first step; the imports; the preparation of the first step
    (tracing, drawing the parameters, compiling); that step; and a later step.

  Raises:
    RuntimeError: a process failed.
  """
  with tempfile.TemporaryDirectory() as folder:
    # Without filtering, the last line of a traceback names the fault.
    environment = {**os.environ, 'XDG_CACHE_HOME': folder, 'JAX_TRACEBACK_FILTERING': 'off'}
    environment.pop('JAX_COMPILATION_CACHE_DIR', None)
    runs = [_start(config, environment) for _ in range(1 + rounds)]
  warm = sorted(runs[1:], key=lambda run: run['total'])
  return {'cold': runs[0], 'warm': warm[len(warm) // 2]}


def _start(config: ml_collections.ConfigDict, environment: dict[str, str]) -> dict[str, float]:
  start = time.time()
  out = subprocess.run(
    [sys.executable, '-m', 'bitnet_jax.benchmarks.startup_child'],
    input=json.dumps(config.to_dict()),
    env=environment,
    capture_output=True,
    text=True,
    check=False,
  )
  if out.returncode:
    last = out.stderr.strip().rpartition('\n')[2]
    raise RuntimeError(f'the process that starts ended with {out.returncode}: {last}')
  imported, prepared, first, step = json.loads(out.stdout.splitlines()[-1])
  return {
    'total': first - start,
    'import': imported - start,
    'prepare': prepared - imported,
    'first step': first - prepared,
    'later step': step,
  }
