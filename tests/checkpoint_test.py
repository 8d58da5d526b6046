"""Checkpoints keep the newest and the best, and give back the bits that they took."""

import shutil

import numpy as np
from absl.testing import absltest

from bitnet_jax import checkpoint, errors


def tree(value):
  rng = np.random.default_rng(value)
  return {'step': np.array(value, np.int32), 'params': {'w': rng.normal(size=(3, 4, 5))}}


class CheckpointTest(absltest.TestCase):
  def open(self, **options):
    checkpoints = checkpoint.Checkpoints(self.workdir, **options)
    self.addCleanup(checkpoints.close)
    return checkpoints

  def setUp(self):
    super().setUp()
    self.workdir = self.create_tempdir().full_path

  def test_round_trip_is_exact(self):
    checkpoints = self.open()
    checkpoints.save(3, tree(3), {'seconds': 1.5}, 0.25)
    checkpoints.wait()
    again = self.open()
    self.assertEqual(again.latest_step(), 3)
    self.assertEqual(again.read_record(3), {'seconds': 1.5})
    restored = again.restore(3, tree(0))
    np.testing.assert_array_equal(restored['params']['w'], tree(3)['params']['w'])
    self.assertEqual(restored['step'], 3)
    self.assertEqual(restored['params']['w'].dtype, np.float64)

  def test_keeps_the_newest_and_the_best(self):
    checkpoints = self.open(keep_latest=2, keep_best=1)
    for step, error in ((1, 0.5), (2, 0.1), (3, 0.4), (4, None), (5, 0.3), (6, float('nan'))):
      checkpoints.save(step, tree(step), {}, error)
    checkpoints.close()
    again = self.open()
    kept = sorted(int(path.name) for path in again.directory.iterdir())
    self.assertEqual(kept, [2, 5, 6])
    self.assertEqual(again.best_step(), 2)
    self.assertEqual(again.latest_step(), 6)

  def test_nothing_there(self):
    checkpoints = self.open()
    self.assertIsNone(checkpoints.latest_step())
    self.assertIsNone(checkpoints.best_step())

  def test_saving_a_step_twice_changes_nothing(self):
    checkpoints = self.open()
    checkpoints.save(1, tree(1), {}, 0.5)
    checkpoints.wait()
    checkpoints.save(1, tree(2), {}, 0.5)
    checkpoints.wait()
    restored = checkpoints.restore(1, tree(0))
    np.testing.assert_array_equal(restored['params']['w'], tree(1)['params']['w'])

  def test_damaged_checkpoint_is_one_line(self):
    checkpoints = self.open()
    checkpoints.save(1, tree(1), {}, 0.5)
    checkpoints.wait()
    shutil.rmtree(checkpoints.directory / '1' / 'state')
    with self.assertRaisesRegex(errors.CheckpointError, 'checkpoint=.*/1: cannot be restored'):
      checkpoints.restore(1, tree(0))

  def test_other_shape_is_refused(self):
    checkpoints = self.open()
    checkpoints.save(1, tree(1), {}, 0.5)
    checkpoints.wait()
    other = {'step': np.zeros((), np.int32), 'params': {'w': np.zeros((3, 4))}}
    with self.assertRaisesRegex(errors.CheckpointError, r"'w'\]=float64\[3,4,5\]: the network has"):
      checkpoints.restore(1, other)
    more = tree(1) | {'extra': np.zeros(2)}
    with self.assertRaisesRegex(errors.CheckpointError, 'extra.*=absent'):
      checkpoints.restore(1, more)


if __name__ == '__main__':
  absltest.main()
