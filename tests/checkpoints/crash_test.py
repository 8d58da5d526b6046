"""A process that saves checkpoints dies at each rename: nothing that was saved is lost or wrong."""

import json
import os
import subprocess
import sys

from absl.testing import absltest

from tests.helpers.paths import ROOT

# Renames of the second and the third save of four, the third of which deletes the first step.
FIRST, LAST = 6, 16


def points(workdir, first, last, *preloaded, **variables):
  done = subprocess.run(
    [
      sys.executable,
      '-m',
      'tests.helpers.crash_points',
      workdir,
      str(first),
      str(last),
      *preloaded,
    ],
    cwd=ROOT,
    env={**os.environ, 'PYTHONPATH': str(ROOT), **variables},
    capture_output=True,
    text=True,
    check=True,
  )
  return [json.loads(line) for line in done.stdout.splitlines()]


class CrashTest(absltest.TestCase):
  def assertSurvived(self, point):
    """What had been saved, or what came after it, is offered, to the bit; the rest is made up."""
    self.assertTrue(point['killed'], point)
    self.assertGreaterEqual(point['offered'], point['saved'], point)
    self.assertTrue(point['right'], point)
    self.assertEqual(point['after'], [2, 3, 4], point)

  def test_every_rename(self):
    found = points(self.create_tempdir().full_path, FIRST, LAST)
    self.assertLen(found, LAST - FIRST + 1)
    for point in found:
      self.assertSurvived(point)
    self.assertEqual({point['saved'] for point in found}, {1, 2, 3})


if __name__ == '__main__':
  absltest.main()
