"""Runs that are killed while they save or read, and go on to the bits of one left alone."""

import re
import shutil
import signal
import subprocess

from absl.testing import absltest

from tests.helpers import faults, recorded_run
from tests.helpers.faults import FOUND
from tests.helpers.paths import CRASH_SOURCE


class PointsTest(recorded_run.RecordedCase):
  def test_streamed_examples_are_the_same_after_a_kill(self):
    fields = {'data.pipeline': 'stream', 'data.workers': 1, 'num_epochs': 1}
    reference = self.recorded_reference(**fields)
    workdir = self.folder / 'streamed'
    for step in (5, 15):
      run = self.recorded(workdir, **fields)
      self.wait_for(run, workdir / 'manifests' / f'{step}.json')
      run.kill()
      run.wait()
    self.ends(self.recorded(workdir, **fields), 0)
    self.assertSameRun(workdir, reference)
    self.assertSameExamples(workdir, reference)

  @absltest.unittest.skipUnless(shutil.which('cc'), 'needs a C compiler')
  def test_every_rename_of_a_save(self):
    """Kills the run just before each rename under checkpoints/10 or of its manifest."""
    library = self.folder / 'crash.so'
    subprocess.run(['cc', '-shared', '-fPIC', '-o', library, CRASH_SOURCE, '-ldl'], check=True)
    reference = self.recorded_reference()
    points = 0
    for under in ('/checkpoints/10', '/manifests/10.json'):
      for point in range(1, 100):
        workdir = self.folder / f'rename-{point}{under.replace("/", "-")}'
        crash = {'CRASH_AT': str(point), 'CRASH_UNDER': under, 'CRASH_OPS': 'rename'}
        run = self.recorded(workdir, variables={'LD_PRELOAD': str(library), **crash})
        run.wait(faults.TIMEOUT)
        if run.returncode == 0:
          break
        self.assertEqual(run.returncode, -signal.SIGKILL, self.text(run)[-2000:])
        rest = self.recorded(workdir)
        self.ends(rest, 0)
        resumed = int(re.search(r'resumed from step (\d+)', self.text(rest))[1])
        self.assertBetween(resumed, 5, 10)  # One interval, and the save in flight.
        self.assertSameRun(workdir, reference)
        shutil.rmtree(workdir)
        points += 1
    self.assertGreater(points, 5)
    FOUND.append(('kill at every rename of a save', f'{points} of {points} survived'))


if __name__ == '__main__':
  absltest.main()
