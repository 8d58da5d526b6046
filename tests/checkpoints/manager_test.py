"""Checkpoints keep the newest and the best, give back the bits they took, or say what is wrong."""

import errno
import os
import pathlib
import shutil
from unittest import mock

import numpy as np
import orbax.checkpoint as ocp
from absl.testing import absltest, parameterized

from bitnet_jax import errors
from bitnet_jax.checkpoints import manager
from bitnet_jax.checkpoints.workdir import Claim
from bitnet_jax.runtime import files
from tests.helpers.checkpoint_case import CheckpointCase, tree
from tests.helpers.processes import run_program


class CheckpointTest(CheckpointCase):
  def test_round_trip_is_exact(self):
    self.save(3)
    again, warning = self.reopen()
    self.assertEqual(warning, '')
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
    self.assertEqual(sorted(int(path.name) for path in self.directory.iterdir()), [2, 5, 6])
    self.assertEqual((again.best_step(), again.latest_step()), (2, 6))
    manifests = pathlib.Path(self.workdir, 'manifests').iterdir()
    self.assertEqual(sorted(path.name for path in manifests), ['2.json', '5.json', '6.json'])

  def test_nothing_there(self):
    checkpoints = self.open()
    self.assertIsNone(checkpoints.latest_step())
    self.assertIsNone(checkpoints.best_step())

  def test_saving_a_step_again_replaces_it(self):
    checkpoints = self.open()
    checkpoints.save(1, tree(1), {}, None)
    checkpoints.save(1, tree(2), {}, 0.5)
    checkpoints.wait()
    restored = checkpoints.restore(1, tree(0))
    np.testing.assert_array_equal(restored['params']['w'], tree(2)['params']['w'])

  def test_other_shape_is_refused(self):
    self.save(1)
    checkpoints, _ = self.reopen()
    other = {'step': np.zeros((), np.int32), 'params': {'w': np.zeros((3, 4))}}
    with self.assertRaisesRegex(errors.CheckpointError, r"'w'\]=float64\[3,4,5\]: the network has"):
      checkpoints.restore(1, other)
    with self.assertRaisesRegex(errors.CheckpointError, 'extra.*=absent'):
      checkpoints.restore(1, tree(1) | {'extra': np.zeros(2)})

  def test_leftover_of_a_save_is_ignored(self):
    self.save(1)
    leftover = self.directory / '2.orbax-checkpoint-tmp' / 'state'
    leftover.mkdir(parents=True)
    checkpoints, _ = self.reopen()
    self.assertEqual(checkpoints.latest_step(), 1)

  def test_failed_background_save_harms_no_other(self):
    done = run_program('limited_file_size', self.workdir, check=True)
    self.assertRegex(
      done.stdout,
      '^workdir=.*: a checkpoint could not be written: .*; raise the limit of a file .*whole$',
    )
    self.assertLen(done.stdout.splitlines(), 1)
    _, said = self.reopen()
    self.assertEqual((self.open().latest_step(), said), (1, ''))

  @parameterized.parameters(
    (OSError(errno.ENOENT, 'No such file or directory', 'x'), 'restore it, or name another'),
    (OSError(errno.ENOTEMPTY, 'Directory not empty', 'x'), 'see that nothing else changes what'),
    (ValueError('NOT_FOUND: x [OS error 2: ENOENT No such file or directory]'), 'restore it, or'),
    (ValueError('x [OS error 122: EDQUOT Disk quota exceeded]'), 'free space there'),
    (RuntimeError('what nobody foresaw'), 'make it readable and writable, and run it again'),
  )
  def test_failed_save_with_room_left_asks_for_no_room(self, fault, remedy):
    checkpoints = self.open()
    checkpoints.save(1, tree(1), {}, None)
    checkpoints.wait()
    with mock.patch.object(ocp.CheckpointManager, 'save', side_effect=fault):
      line = f'workdir=.*: a checkpoint could not be written: .*; {remedy}.*; steps saved before'
      with self.assertRaisesRegex(errors.StorageError, line) as caught:
        checkpoints.save(2, tree(2), {}, None)
    self.assertNotIn('keep_latest', str(caught.exception))

  def test_each_file_is_hashed_once_at_a_restart(self):
    self.save(1, 2)
    with mock.patch.object(files, 'sha256', wraps=files.sha256) as hashed:
      checkpoints, _ = self.reopen()
      checkpoints.read_record(2)
      checkpoints.restore(2, tree(0))
    paths = [call.args[0] for call in hashed.call_args_list]
    self.assertCountEqual(paths, [*self.files(1), *self.files(2)])

  @parameterized.parameters(float('nan'), float('inf'), float('-inf'))
  def test_state_that_is_not_finite_is_not_saved(self, value):
    checkpoints = self.open()
    checkpoints.save(1, tree(1), {}, None)
    bad = tree(2)
    bad['params']['w'][2, 3, 4] = value
    with self.assertRaisesRegex(
      errors.DivergedError, 'parameters=params/w: not finite, .*last good checkpoint: 1; lower'
    ) as caught:
      checkpoints.save(2, bad, {}, None)
    self.assertEqual(caught.exception.exit_code, 5)
    checkpoints.save(2, tree(2) | {'interval_sums': {'loss': np.float32(value)}}, {}, None)
    checkpoints.wait()
    bad = tree(3) | {'opt_state': [{}, {'trace': np.array([value], np.float32)}]}
    with self.assertRaisesRegex(errors.DivergedError, 'opt_state/1/trace: .* checkpoint: 2;'):
      checkpoints.save(3, bad, {}, None)
    checkpoints.close()
    self.assertEqual(sorted(path.name for path in self.directory.iterdir()), ['1', '2'])

  @parameterized.parameters('', 'checkpoints')
  def test_directory_that_was_made_anew_gets_no_step(self, name):
    """The new one often has the number of the old one, unless a process keeps that open."""
    workdir = pathlib.Path(self.create_tempdir().full_path, 'run')
    claim = Claim(str(workdir))
    self.addCleanup(claim.release)
    checkpoints = manager.Checkpoints(str(workdir), check_workdir=claim.check)
    checkpoints.save(1, tree(1), {}, None)
    checkpoints.wait()
    shutil.rmtree(workdir / name)
    (workdir / 'checkpoints').mkdir(parents=True)
    with self.assertRaisesRegex(errors.StorageError, 'workdir=.*: it was removed while the run'):
      checkpoints.save(2, tree(2), {}, None)
    checkpoints.close()
    self.assertEqual(os.listdir(workdir / 'checkpoints'), [])

  def test_damage_while_running_is_found_at_restore(self):
    self.save(1)
    checkpoints, _ = self.reopen()
    self.files(1)[0].write_bytes(b'other')
    with self.assertRaisesRegex(errors.CheckpointError, 'checkpoint=.*/1: .*'):
      checkpoints.restore(1, tree(0))


if __name__ == '__main__':
  absltest.main()
