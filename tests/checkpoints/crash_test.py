"""A process that saves checkpoints dies at each rename: nothing that was saved is lost or wrong."""

from absl.testing import absltest

from tests.helpers import crash_case

# Renames of the second and the third save of four, the third of which deletes the first step.
FIRST, LAST = 6, 16


class CrashTest(crash_case.CrashCase):
  def test_every_rename(self):
    found = crash_case.points(self.create_tempdir().full_path, FIRST, LAST)
    self.assertLen(found, LAST - FIRST + 1)
    for point in found:
      self.assertSurvived(point)
    self.assertEqual({point['saved'] for point in found}, {1, 2, 3})


if __name__ == '__main__':
  absltest.main()
