"""Memory that was freed is there again without a fault of its pages, in any thread."""

import json
import os

from absl.testing import absltest

from tests.helpers.paths import ROOT
from tests.helpers.processes import run_program


def run_child(**environment):
  kept = {k: v for k, v in os.environ.items() if not k.startswith(('MALLOC_', 'GLIBC_TUNABLES'))}
  env = {**kept, 'PYTHONPATH': str(ROOT), **environment}
  return json.loads(run_program('heap_faults', env=env, check=True).stdout)


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
