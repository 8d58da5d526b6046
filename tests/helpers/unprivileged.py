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

# Numbers of linux/prctl.h and linux/capability.h; what is dropped is lost with the next program.
_DROPS = """
import ctypes, os, sys
PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH = 24, 1, 2
for capability in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH):
  ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""
_READS = 'import sys; open(sys.argv[1])'


def run(*command, **options):
  """A command's end, as `subprocess.run` gives it."""
  if os.geteuid() == 0:
    command = sys.executable, '-c', _DROPS, *command
  options = {'capture_output': True, 'text': True, 'timeout': 120, **options}
  return subprocess.run(command, **options)


@functools.cache
def possible():
  """Whether a file without permissions cannot be read."""
  with tempfile.NamedTemporaryFile() as file:
    pathlib.Path(file.name).chmod(0)
    return 'PermissionError' in run(sys.executable, '-c', _READS, file.name).stderr
