"""Processes that permissions stop, also where root runs the tests.

The user stays the same, whose Python may lie where no other may read it; root loses the right to
pass by a file's permissions.
"""

import functools
import os
import pathlib
import subprocess
import sys
import tempfile

from tests.helpers.paths import program

_READS = 'import sys; open(sys.argv[1])'


def run(*command, **options):
  """A command's end, as `subprocess.run` gives it."""
  if os.geteuid() == 0:
    command = sys.executable, program('drop_capabilities'), *command
  options = {'capture_output': True, 'text': True, 'timeout': 120, **options}
  return subprocess.run(command, **options)


@functools.cache
def possible():
  """Whether a file without permissions cannot be read."""
  with tempfile.NamedTemporaryFile() as file:
    pathlib.Path(file.name).chmod(0)
    return 'PermissionError' in run(sys.executable, '-c', _READS, file.name).stderr
