"""Reads a stream with two workers, prints their numbers, and waits to be killed."""

import multiprocessing
import time

from bitnet_jax.data.batches import stream
from tests.helpers import memory_source

if __name__ == '__main__':
  reader = stream.iterate(memory_source.training(), 0, workers=2, timeout_seconds=60)
  next(reader)
  print(*[process.pid for process in multiprocessing.active_children()], flush=True)
  time.sleep(600)
