"""The training command, which is stuck when it asks for the inputs of step 12."""

import sys
import time

from bitnet_jax import main
from bitnet_jax.data import pipeline
from bitnet_jax.distributed import cluster
from bitnet_jax.runtime import cli, watchdog

watchdog._PATIENT = 1000
open_training = pipeline.open_training


def open_stuck(*arguments):
  data = open_training(*arguments)
  inputs = data.inputs

  def stuck_inputs(number):
    if number == 12:
      time.sleep(1000)
    return inputs(number)

  data.inputs = stuck_inputs
  return data


if __name__ == '__main__':
  pipeline.open_training = open_stuck
  cli.run(main.main, ['main', *sys.argv[1:]], end=cluster.end)
