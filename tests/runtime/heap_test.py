"""Memory that was freed is there again without a fault of its pages, in any thread."""

import json
import os
import subprocess
import sys

from absl.testing import absltest

# Large pieces, as of a step, freed and asked for again by a second thread.
CHILD = """
import ctypes, json, resource, threading
from bitnet_jax.runtime import host
done = host.keep_freed_memory()
libc, size, faults = ctypes.CDLL(None), 2**27, []
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
def steps():
  for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    piece = libc.malloc(size)
    libc.memset(piece, 1, size)
    libc.free(piece)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
thread = threading.Thread(target=steps)
thread.start()
thread.join()
print(json.dumps([done, faults]))
"""


def run_child(**environment):
  kept = {k: v for k, v in os.environ.items() if not k.startswith(('MALLOC_', 'GLIBC_TUNABLES'))}
  out = subprocess.run(
    [sys.executable, '-c', CHILD], env={**kept, **environment}, capture_output=True, check=True
  )
  return json.loads(out.stdout)


class HeapTest(absltest.TestCase):
  def test_only_the_first_use_faults(self):
    done, (first, *later) = run_child()
    if not done:
      self.skipTest('not glibc')
    self.assertGreater(first, 100)
    self.assertLess(max(later), 100)

  def test_what_the_user_set_stands(self):
    for name, value in (('MALLOC_ARENA_MAX', '2'), ('GLIBC_TUNABLES', 'glibc.malloc.check=0')):
      done, faults = run_child(**{name: value})
      self.assertFalse(done)
      self.assertGreater(min(faults), 100)


if __name__ == '__main__':
  absltest.main()
