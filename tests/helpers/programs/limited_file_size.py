"""Saves two checkpoints; at the second one files may not grow past 64 KB any more."""

import resource
import signal
import sys

import numpy as np

from bitnet_jax import errors
from bitnet_jax.checkpoints import manager

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
checkpoints = manager.Checkpoints(sys.argv[1])


def save(step):
  weights = np.random.default_rng(step).normal(size=(256, 1024))
  checkpoints.save(step, {'params': {'w': weights}}, {}, 0.5)
  checkpoints.wait()


save(1)
resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, resource.RLIM_INFINITY))
try:
  save(2)
except errors.StorageError as error:
  print(error)
