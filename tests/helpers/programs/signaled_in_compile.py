"""The training command, which asks itself to stop while the training step compiles.

It says on stderr when the step has been compiled, and whether that was before the signal.
"""

import os
import signal
import sys
import threading

import jax

from bitnet_jax import main
from bitnet_jax.runtime import cli
from bitnet_jax.training import steps

make_train_step, traced, timers = steps.make_train_step, [], []


def make_and_watch(*arguments, **options):
  train_step = make_train_step(*arguments, **options)

  def step(state, inputs):
    traced.append(True)
    return train_step(state, inputs)

  return step


def begins(event, **_):
  if traced and not timers and event == '/jax/compilation_cache/compile_requests_use_cache':
    timers.append(threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGTERM)))
    timers[0].start()


def ends(event, seconds, **_):
  del seconds
  if timers and event == '/jax/core/compile/backend_compile_duration':
    late = timers[0].is_alive()
    print('COMPILED', 'before' if late else 'after', 'SIGTERM', file=sys.stderr, flush=True)
    timers[0].join()


if __name__ == '__main__':
  steps.make_train_step = make_and_watch
  jax.monitoring.register_event_listener(begins)
  jax.monitoring.register_event_duration_secs_listener(ends)
  cli.run(main.main, ['main', *sys.argv[1:]])
