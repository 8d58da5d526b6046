"""Sends itself three signals that ask it to stop; the third one aborts it."""

import os
import signal
import time

from bitnet_jax.runtime import preemption

preemption.install_handlers()
for number in range(3):
  assert preemption.requested() == (number > 0)
  os.kill(os.getpid(), signal.SIGTERM)
  time.sleep(0.1)
print('not reached')
