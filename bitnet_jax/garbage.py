"""When Python looks for garbage."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
  """No search for garbage in a `with` block that imports or traces, nor later in what it has made.

  That is hundreds of thousands of objects that stay, looked through again and again: a sixth of the
  time that importing JAX and Flax takes.
  """
  enabled = gc.isenabled()
  gc.disable()
  try:
    yield
  finally:
    gc.freeze()
    if enabled:
      gc.enable()
