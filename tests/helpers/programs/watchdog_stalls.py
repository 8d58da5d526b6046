"""Reports steps, then stalls; the first wait and waits up to the limit may pass."""

import atexit
import time

from bitnet_jax.runtime import watchdog

watchdog._PATIENT = 40
# What JAX would do at exit, where a program with effects waits for a lost process.
atexit.register(time.sleep, 1000)
watch = watchdog.Watchdog(0.5)
time.sleep(1)
watch.report('in training', 6)
time.sleep(1)
for step in range(7, 10):
  watch.report('in training', step)
  time.sleep(0.01)
print('waits')
time.sleep(60)
