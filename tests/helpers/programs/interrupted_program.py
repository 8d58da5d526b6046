"""A program of somebody else that imports the package and is interrupted."""

import os
import signal

import bitnet_jax

assert bitnet_jax
try:
  os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
  print('raised')
