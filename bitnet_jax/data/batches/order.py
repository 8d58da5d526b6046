"""The order of the examples in an epoch."""

from __future__ import annotations

import numpy as np


def epoch_order(seed: int, epoch: int, num_examples: int) -> np.ndarray:
  """The permutation of the examples in one epoch.

  A pure function of its arguments: a run's position in the data follows from
  its step alone, and is the same on any number of devices and processes. It is
  stable for ever: NumPy fixes the streams of SeedSequence and Philox but not
  `Generator.permutation`, so the examples are sorted by one 64-bit draw each
  (equal draws, if ever, by index).

  Args:
    seed: of the run, 0 or greater.
    epoch: counted from 0.
    num_examples: of the split, at most 2**31 - 1.

  Returns:
    int32 `[num_examples]`, each of 0..num_examples-1 once.

  Raises:
    ValueError: an argument out of range.
  """
  if seed < 0 or epoch < 0 or not 0 <= num_examples < 2**31:
    raise ValueError(f'seed={seed}, epoch={epoch}, num_examples={num_examples}: out of range')
  stream = np.random.Philox(np.random.SeedSequence(entropy=seed, spawn_key=(epoch,)))
  return np.argsort(stream.random_raw(num_examples), kind='stable').astype(np.int32)
