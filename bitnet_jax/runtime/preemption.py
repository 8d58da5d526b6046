"""Notices requests to stop: SIGTERM from a scheduler, SIGINT from a keyboard.

The first one is met after the steps that the device was given: the run saves and ends with exit
code 75. A second one, while it saves, changes nothing; a third ends the process at once, and the
checkpoint before stays whole.
"""

from __future__ import annotations

import os
import signal
from types import FrameType

from bitnet_jax.runtime import output

SIGNALS = (signal.SIGTERM, signal.SIGINT)
_ABORT_AT = 3
_received: list[int] = []


def install_handlers() -> None:
  """Installs the handlers; call it in the main thread, before the first long piece of work."""
  _received.clear()
  for number in SIGNALS:
    signal.signal(number, _handle)


def requested() -> bool:
  """Returns whether the run was asked to stop."""
  return bool(_received)


def _handle(number: int, _: FrameType | None) -> None:
  _received.append(number)
  if len(_received) >= _ABORT_AT:
    os._exit(128 + number)
  name = signal.Signals(number).name
  said = 'saving and stopping' if len(_received) == 1 else 'still saving; once more aborts'
  # Not by print, which the handler may have interrupted.
  output.write(2, f'\nbitnet_jax: {name}: {said}\n')
