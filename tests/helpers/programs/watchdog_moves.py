"""Takes its time wherever the watchdog allows it.

A step that takes long allows for others that do, and so does the first; every phase has its own
limit.
"""

import time

from bitnet_jax.runtime import watchdog

watchdog._PATIENT = 40
with watchdog.Watchdog(0.5) as watch:
  for step in (1, 2):
    watch.report('in training', step)
  watch._longest['in training'] = 0.3
  for wait in (2, 0.1):
    time.sleep(wait)
    watch.report('in training', 2)
  watch.report('in an evaluation')
  time.sleep(1)
  watch.report('')
  time.sleep(1)
with watchdog.Watchdog(0.5) as watch:
  for wait in (2, 2, 0):
    watch.report('in training', 1)
    time.sleep(wait)
with watchdog.Watchdog(0) as watch:
  for step in range(3):
    watch.report('in training', step)
  time.sleep(1)
watchdog._PATIENT = 8
with watchdog.Watchdog(0.25) as watch:
  watch.report(watchdog.STARTING)  # Alone, it may take any time.
  time.sleep(3)
  for _ in range(3):  # Storage may take long every time, not the first time alone.
    watch.report('in training', 1)
    watch.report(watchdog.SAVING)
    time.sleep(1)
print('through')
