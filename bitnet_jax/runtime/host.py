"""Tells what the host has (cores) and sets how Python and glibc use its memory."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
from collections.abc import Iterator

# Options of mallopt, from glibc's malloc.h.
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_NEVER = -1
# Where the user sets one of these variables, `keep_freed_memory` leaves the allocator alone.
_USER_SETTINGS = (
  'GLIBC_TUNABLES',
  'MALLOC_ARENA_MAX',
  'MALLOC_MMAP_MAX_',
  'MALLOC_MMAP_THRESHOLD_',
  'MALLOC_TRIM_THRESHOLD_',
)


def available_cores() -> int:
  """Returns the cores that this process may use; where the system does not say, the machine's.

  Taskset and cpusets are respected; a CPU quota of a cgroup is not seen.
  """
  if hasattr(os, 'sched_getaffinity'):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def keep_freed_memory() -> bool:
  """Tells glibc to keep freed memory for the next training step; call it before threads start.

  XLA asks for all temporary memory of a step in one piece of hundreds of megabytes. By default
  glibc maps such a piece anew and returns it to the kernel, so that each page is cleared and
  faulted in at every step: a tenth of a step's time on two cores. Pieces of that size live in the
  main arena alone, so all threads share it. Other C libraries are left alone, and so is glibc
  where the environment configures it.

  Returns:
    Whether the allocator was changed.
  """
  if any(os.environ.get(name) for name in _USER_SETTINGS):
    return False
  mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
  if mallopt is None:
    return False
  options = {_ARENA_MAX: 1, _MMAP_MAX: 0, _TRIM_THRESHOLD: _NEVER}
  return all(mallopt(option, value) for option, value in options.items())


@contextlib.contextmanager
def gc_paused() -> Iterator[None]:
  """Pauses Python's garbage collector in a `with` block that imports or traces.

  Such a block makes hundreds of thousands of objects that stay. Searching them again and again
  takes a sixth of the time that importing JAX and Flax takes, so they are also frozen: later
  searches skip them.
  """
  enabled = gc.isenabled()
  gc.disable()
  try:
    yield
  finally:
    gc.freeze()
    if enabled:
      gc.enable()
