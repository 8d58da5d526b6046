"""A process that saves checkpoints dies before each operation on files that it or Orbax makes."""

import shutil
import subprocess

from absl.testing import absltest

from tests.helpers import crash_case
from tests.helpers.paths import CRASH_SOURCE


class EveryOperationTest(crash_case.CrashCase):
  @absltest.unittest.skipUnless(shutil.which('cc'), 'needs a C compiler')
  def test_every_operation(self):
    folder = self.create_tempdir().full_path
    subprocess.run(
      ['cc', '-shared', '-fPIC', '-o', f'{folder}/c.so', CRASH_SOURCE, '-ldl'], check=True
    )
    found = crash_case.points(f'{folder}/w', 1, 5000, 'preloaded', LD_PRELOAD=f'{folder}/c.so')
    self.assertEqual(found[-1]['code'], 0)
    self.assertGreater(len(found), 100)
    for point in found[:-1]:
      self.assertSurvived(point)
    print(f'measured: kill at every operation on files: {len(found) - 1} of {len(found) - 1}')


if __name__ == '__main__':
  absltest.main()
