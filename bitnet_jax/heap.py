"""Memory that a training step frees stays with the process, for the next step.

XLA asks for all its temporary memory at each step, hundreds of megabytes in one piece, which glibc
maps anew and gives back to the kernel: each page is then cleared and faulted in again, a tenth of a
step's time on two cores.
"""

from __future__ import annotations

import ctypes
import os

# Numbers of malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_NEVER = -1
# What the user says of it in the environment stands.
_USERS_OWN = (
  'GLIBC_TUNABLES',
  'MALLOC_ARENA_MAX',
  'MALLOC_MMAP_MAX_',
  'MALLOC_MMAP_THRESHOLD_',
  'MALLOC_TRIM_THRESHOLD_',
)


def keep_freed_memory() -> bool:
  """Tells glibc to give nothing back; to be called before there are other threads.

  Pieces of that size lie in the main arena alone, so that all threads share it. Does nothing with
  another C library, or where the environment says how memory is to be had.

  Returns:
    Whether it is done.
  """
  if any(os.environ.get(name) for name in _USERS_OWN):
    return False
  mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
  if mallopt is None:
    return False
  options = {_ARENA_MAX: 1, _MMAP_MAX: 0, _TRIM_THRESHOLD: _NEVER}
  return all(mallopt(option, value) for option, value in options.items())
