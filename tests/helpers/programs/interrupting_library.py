"""Stands for a library, in whose import SIGINT comes."""

import cProfile
import os
import signal


def interrupt():
  os.kill(os.getpid(), signal.SIGINT)


# In text that is run, by the profiler or by dataclasses, an exception would have Python end by the
# signal.
cProfile.Profile().runctx('interrupt()', globals(), locals())
print('went on')
raise SystemExit(9)
