"""A command that fails while the device still computes; what it computes calls Python."""

import time

import jax
import numpy as np

from bitnet_jax import errors
from bitnet_jax.onednn import custom_call
from bitnet_jax.runtime import cli

results = []
SHAPE = jax.ShapeDtypeStruct((64, 64), np.float32)


class Slow:
  def run(self, addresses):
    del addresses
    time.sleep(1)
    print('computed', flush=True)


@jax.jit
def compute(x):
  [x] = custom_call.call('slow f32', [x @ x], [SHAPE])
  return custom_call.call('slow f32', [x], [SHAPE])[0]


def main(_):
  results.append(compute(np.ones((64, 64), np.float32)))
  print('failed', flush=True)
  raise errors.DataError('image', 'x', 'broken', 'mend it')


custom_call.primitives.make = lambda name: Slow()
cli.run(main, ['command'])
