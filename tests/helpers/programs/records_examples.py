"""The training command, which also writes down the examples of each step, in $EXAMPLES.

It writes the indices of the examples where the data set is resident, and a digest of the pixels and
labels where it streams in.
"""

import hashlib
import json
import os
import sys

from bitnet_jax import main
from bitnet_jax.runtime import cli


def describe(inputs, step_in_epoch):
  import numpy as np  # Not in the workers of the stream, which import this file.

  if 'order' in inputs:
    return np.asarray(inputs['order'])[:, step_in_epoch].ravel().tolist()
  parts = [np.asarray(inputs[name]).tobytes() for name in ('image', 'label')]
  return hashlib.sha256(b''.join(parts)).hexdigest()


def record(open_training):
  def open_recorded(config, source, stop):
    data = open_training(config, source, stop)
    steps_per_epoch, inputs = data.num_batches, data.inputs

    def recorded(number):
      batch = inputs(number)
      with open(os.environ['EXAMPLES'], 'a') as file:
        file.write(json.dumps([number, describe(batch, number % steps_per_epoch)]) + '\n')
      return batch

    data.inputs = recorded
    return data

  return open_recorded


if __name__ == '__main__':
  from bitnet_jax.data import pipeline

  pipeline.open_training = record(pipeline.open_training)
  cli.run(main.main, ['main', *sys.argv[1:]])
