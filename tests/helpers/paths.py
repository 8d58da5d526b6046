"""Where the checkout is, and the programs that tests start as processes."""

import pathlib

ROOT = pathlib.Path(__file__).parents[2]
PROGRAMS = ROOT / 'tests' / 'helpers' / 'programs'
# Preloaded, it kills a process before an operation on files.
CRASH_SOURCE = ROOT / 'tests' / 'helpers' / 'crash.c'


def program(name):
  """Path of a program in tests/helpers/programs."""
  path = PROGRAMS / f'{name}.py'
  assert path.exists(), path
  return str(path)
