"""Waits for a line of input between two steps, so that it can be stopped there."""

from bitnet_jax.runtime import watchdog

watchdog._PATIENT = 40
watchdog._STOPPED = 1
with watchdog.Watchdog(5) as watch:
  for step in (1, 2):
    watch.report('in training', step)
  print('waits', flush=True)
  input()
  watch.report('in training', 3)
print('through')
