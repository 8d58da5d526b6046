"""Compiled programs are kept from one process to the next."""

from __future__ import annotations

import os
import pathlib

import jax

_CACHE = 'bitnet_jax/compiled'


def keep_programs() -> str:
  """Turns JAX's persistent compilation cache on, unless the user has set it.

  It lies in $XDG_CACHE_HOME or ~/.cache; JAX_COMPILATION_CACHE_DIR names another place, and
  JAX_ENABLE_COMPILATION_CACHE=false turns it off.

  Returns:
    Where it lies; '' where it is the user's, or cannot be written.
  """
  if jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
    return ''
  folder = pathlib.Path(os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache') / _CACHE
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError:
    return ''
  jax.config.update('jax_compilation_cache_dir', str(folder))
  # Every program: the small ones before the first step add up.
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
  jax.config.update('jax_persistent_cache_min_entry_size_bytes', -1)
  return str(folder)
