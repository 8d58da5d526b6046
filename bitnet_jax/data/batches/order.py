"""Draws the order of the examples in an epoch, for both pipelines."""

from __future__ import annotations

import functools

import numpy as np


@functools.lru_cache(maxsize=2)  # A worker that reads ahead may be in two epochs at once.
def epoch_order(seed: int, epoch: int, num_examples: int) -> np.ndarray:
  """Returns the permutation of the examples in one epoch.

  The permutation is a pure function of the arguments: a run's position in the data follows from
  its step alone, and is the same on any number of devices and processes. NumPy guarantees the
  streams of SeedSequence and Philox for all versions but not `Generator.permutation`, so the
  examples are sorted by one 64-bit number each (equal numbers, if ever, by index).

  Args:
    seed: seed of the run, 0 or greater.
    epoch: number of the epoch, counted from 0.
    num_examples: examples of the split, at most 2**31 - 1.

  Returns:
    int32 `[num_examples]`, read-only: each of 0..num_examples-1 once.

  Raises:
    ValueError: an argument is out of range.
  """
  if seed < 0 or epoch < 0 or not 0 <= num_examples < 2**31:
    raise ValueError(f'seed={seed}, epoch={epoch}, num_examples={num_examples}: out of range')
  stream = np.random.Philox(np.random.SeedSequence(entropy=seed, spawn_key=(epoch,)))
  permutation = np.argsort(stream.random_raw(num_examples), kind='stable').astype(np.int32)
  permutation.setflags(write=False)  # All callers share it.
  return permutation
