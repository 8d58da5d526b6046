"""The training command, which fails at the first chance after the save of step 10 began."""

import sys

from bitnet_jax import errors, main
from bitnet_jax.runtime import cli
from bitnet_jax.training import loop

evaluate_and_save = loop.evaluate_and_save


def save_and_fail(run, step, state):
  evaluate_and_save(run, step, state)
  if step == 10:
    raise errors.DataError('image', 'x', 'broken', 'mend it')


if __name__ == '__main__':
  loop.evaluate_and_save = save_and_fail
  cli.run(main.main, ['main', *sys.argv[1:]])
