"""Stalls before its first step, in a cluster, where that is watched too."""

import atexit
import time

from bitnet_jax.runtime import watchdog


class Peers:
  def fault(self, now):
    pass

  def stalled(self, step):
    return '; process 1 is behind'

  def report(self, step):
    pass

  def announce_exit(self, line):
    print('told:', line)


watchdog._PATIENT = 4
# What JAX would do at exit, where a program with effects waits for a lost process.
atexit.register(time.sleep, 1000)
watch = watchdog.Watchdog(0.5)
watch.watch(Peers())
for _ in range(2):
  time.sleep(1)
  watch.report(watchdog.STARTING)
print('waits')
time.sleep(60)
