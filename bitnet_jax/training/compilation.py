"""Keeps compiled programs for later processes, and compiles while other work is done."""

from __future__ import annotations

import contextlib
import os
import pathlib
import threading
from collections.abc import Callable
from typing import Any

import jax

_CACHE = 'bitnet_jax/compiled'


def enable_persistent_cache() -> str:
  """Turns JAX's persistent compilation cache on, unless the user has set it.

  It lies in $XDG_CACHE_HOME or ~/.cache; JAX_COMPILATION_CACHE_DIR names another place, and
  JAX_ENABLE_COMPILATION_CACHE=false turns it off.

  Returns:
    Where it lies; '' where it is the user's, or cannot be written.
  """
  if jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
    return ''
  try:
    above = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
    folder = pathlib.Path(above) / _CACHE
    folder.mkdir(parents=True, exist_ok=True)
  except (OSError, RuntimeError):  # The latter: a user without a home.
    return ''
  jax.config.update('jax_compilation_cache_dir', str(folder))
  # Every program: the small ones before the first step add up.
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
  jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)
  return str(folder)


def compile_ahead(mapped: Any, *shapes: Any) -> Callable[[], None]:
  """Traces a function now and compiles it in a thread, where the process is the only one.

  A failure in the thread happens again, and is reported, where the function is called.

  Args:
    mapped: function from `devices.map_devices`.
    shapes: its arguments as shapes, from `devices.shapes`.

  Returns:
    A function that waits for the thread; called before that, `mapped` would compile once more.
  """
  if jax.process_count() > 1:
    return lambda: None  # There pmap is lowered for arrays alone.
  lowered = mapped.lower(*shapes)

  def compile_it() -> None:
    with contextlib.suppress(Exception):
      lowered.compile()

  thread = threading.Thread(target=compile_it, name='compile_ahead')
  thread.start()
  return thread.join
