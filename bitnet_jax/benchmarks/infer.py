"""Measures the speed of a network in use, alone or in turns with PyTorch and onnxruntime."""

from __future__ import annotations

import tempfile
from typing import Any

import ml_collections
import numpy as np

from bitnet_jax import errors
from bitnet_jax.benchmarks import against_torch, timing
from bitnet_jax.benchmarks.network import Case

# Largest difference of two float32 computations of one function, over the largest logit.
_AGREEMENT = 1e-4


def measure(
  config: ml_collections.ConfigDict,
  *,
  rounds: int,
  count: int,
  against: str = '',
  torch_python: str = '',
) -> dict[str, Any]:
  """Times the network, with batch norm folded, on a batch.

  Args:
    config: the network, its type and the batch.
    rounds: how often each side is timed.
    count: applications of a timing.
    against: 'torch' for PyTorch and, in float32, onnxruntime; '' for no comparison.
    torch_python: path of an interpreter that has both; '' for this one.

  Returns:
    A JSON object: seconds and images/second of each side, how much faster ours is than the faster
    other side, and how closely the logits agree.

  Raises:
    ConfigError: PyTorch does not run, or computes something else.
  """
  case = Case(config)
  run = case.in_use()
  logits = run()

  def ours() -> float:
    run()  # Wakes the threads.
    return timing.seconds_of(run, count)

  work = config.global_batch_size * count
  sides: dict[str, timing.Side] = {'ours': ours}
  if not against:
    seconds = timing.in_turns(sides, rounds)
    return {'ours': timing.summary(seconds['ours'], work)}
  with (
    tempfile.TemporaryDirectory() as folder,
    against_torch.TorchProcess(torch_python, folder) as torch,
  ):
    arrays = (config, case.variables, case.images, case.labels)
    versions = torch.build(*arrays, dtype=config.model.dtype)
    agreement = _compare(logits, np.asarray(torch.ask('logits')), config.model.dtype)
    sides['torch'] = lambda: torch.ask('infer', count=count)
    if config.model.dtype == 'float32':
      versions['onnxruntime'] = torch.ask('export')
      sides['onnxruntime'] = lambda: torch.ask('infer_onnx', count=count)
    seconds = timing.in_turns(sides, rounds)
  best = min(seconds.keys() - {'ours'}, key=lambda name: np.median(seconds[name]))
  return {
    **{name: timing.summary(values, work) for name, values in seconds.items()},
    'ratio': timing.ratio(seconds['ours'], seconds[best]),
    'agreement': agreement,
    'versions': versions,
  }


def _compare(ours: np.ndarray, theirs: np.ndarray, dtype: str) -> float:
  difference = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
  if dtype == 'float32' and difference > _AGREEMENT:
    raise errors.ConfigError(
      'against', 'torch', f'its logits differ by {difference:.1e} of the largest', 'report this'
    )
  return difference
