"""Ends a command that gets SIGINT while it is imported, with one line and exit code 130.

`python -m bitnet_jax.COMMAND` imports this package before anything else; libraries follow, for a
second or more. An exception in the middle of them may be lost, or crash native code.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from types import FrameType

LINE = 'bitnet_jax: interrupted'
CODE = 130  # 128 + SIGINT, as shells report it.


def end_imports() -> None:
  """Makes SIGINT end a command at once, until `raise_again`; other programs are left alone."""
  # What sys.argv begins with while `python -m` looks for its module, and so imports this package.
  is_command = sys.argv[:1] == ['-m']
  if is_command and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _end)


def raise_again() -> None:
  """Makes SIGINT raise KeyboardInterrupt again."""
  if signal.getsignal(signal.SIGINT) is _end:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def load(*modules: str) -> None:
  """Imports what a command is about to use, in the main thread; SIGINT then ends it at once."""
  if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _end)
  for module in modules:
    importlib.import_module(module)
  raise_again()


def _end(_: int, __: FrameType | None) -> None:
  try:
    os.write(2, f'{LINE}\n'.encode())
  finally:
    os._exit(CODE)
