"""The benchmark command, whose measurements of the input take one short round each."""

import functools
import runpy

if __name__ == '__main__':  # The workers of the stream import this file, too.
  from bitnet_jax.benchmarks import input as measurements

  measurements._ROUNDS = measurements._STREAM_ROUNDS = 1
  measurements.augmenting = functools.partial(measurements.augmenting, num_batches=3)
  runpy.run_module('bitnet_jax.benchmark', run_name='__main__')
