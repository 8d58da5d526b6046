"""A process that saves checkpoints dies before each operation on files that it or Orbax makes."""

import shutil
import subprocess

from absl.testing import absltest

from tests.checkpoints import crash_test
from tests.faults.kill_test import SOURCE


class EveryOperationTest(absltest.TestCase):
  @absltest.unittest.skipUnless(shutil.which('cc'), 'needs a C compiler')
  def test_every_operation(self):
    folder = self.create_tempdir().full_path
    subprocess.run(['cc', '-shared', '-fPIC', '-o', f'{folder}/c.so', SOURCE, '-ldl'], check=True)
    found = crash_test.points(f'{folder}/w', 1, 5000, 'preloaded', LD_PRELOAD=f'{folder}/c.so')
    self.assertEqual(found[-1]['code'], 0)
    self.assertGreater(len(found), 100)
    for point in found[:-1]:
      crash_test.CrashTest.assertSurvived(self, point)
    print(f'measured: kill at every operation on files: {len(found) - 1} of {len(found) - 1}')


if __name__ == '__main__':
  absltest.main()
