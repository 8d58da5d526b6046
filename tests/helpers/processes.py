"""Programs of tests/helpers/programs, run as processes."""

import os
import subprocess
import sys

from tests.helpers.paths import ROOT, program


def environment(**variables):
  """The variables of this process, by which a program finds the checkout."""
  return {**os.environ, 'PYTHONPATH': str(ROOT), **variables}


def outside_environment():
  """The variables of a program that knows nothing of the checkout."""
  return {name: value for name, value in {**os.environ}.items() if name != 'PYTHONPATH'}


def run_program(name, *arguments, env=None, **options):
  """Runs a program to its end; the result is that of `subprocess.run`."""
  command = [sys.executable, program(name), *map(str, arguments)]
  options = {'capture_output': True, 'text': True, 'timeout': 120, **options}
  return subprocess.run(command, env=env or environment(), **options)
