"""Processes that save checkpoints and are killed at each of some points."""

import json
import subprocess
import sys

from absl.testing import absltest

from tests.helpers.paths import ROOT
from tests.helpers.processes import environment


def points(workdir, first, last, *preloaded, **variables):
  """What `crash_points` found at each point from the first to the last."""
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
    env=environment(**variables),
    capture_output=True,
    text=True,
    check=True,
  )
  return [json.loads(line) for line in done.stdout.splitlines()]


class CrashCase(absltest.TestCase):
  def assertSurvived(self, point):
    """What had been saved, or what came after it, is offered, to the bit; the rest is made up."""
    self.assertTrue(point['killed'], point)
    self.assertGreaterEqual(point['offered'], point['saved'], point)
    self.assertTrue(point['right'], point)
    self.assertEqual(point['after'], [2, 3, 4], point)
