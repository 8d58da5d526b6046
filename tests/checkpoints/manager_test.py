"""Checkpoints keep the newest and the best, give back the bits they took, or say what is wrong."""

import contextlib
import errno
import io
import os
import pathlib
import random
import shutil
import subprocess
import sys
from unittest import mock

import numpy as np
import orbax.checkpoint as ocp
from absl.testing import absltest, parameterized

from bitnet_jax import errors
from bitnet_jax.checkpoints import manager, manifest
from bitnet_jax.checkpoints.workdir import Claim

# Files may not grow past 64 KB any more when the second step is saved.
FULL = """
import resource, signal, sys
import numpy as np
from bitnet_jax.checkpoints import manager
from bitnet_jax import errors
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
checkpoints = manager.Checkpoints(sys.argv[1])
def save(step):
  weights = np.random.default_rng(step).normal(size=(256, 1024))
  checkpoints.save(step, {'params': {'w': weights}}, {}, 0.5)
  checkpoints.wait()
save(1)
resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, resource.RLIM_INFINITY))
try:
  save(2)
except errors.StorageError as error:
  print(error)
"""


def tree(value):
  rng = np.random.default_rng(value)
  return {'step': np.array(value, np.int32), 'params': {'w': rng.normal(size=(3, 4, 5))}}


class CheckpointTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.workdir = self.create_tempdir().full_path
    self.directory = pathlib.Path(self.workdir, 'checkpoints')

  def open(self, **options):
    checkpoints = manager.Checkpoints(self.workdir, **options)
    self.addCleanup(checkpoints.close)
    return checkpoints

  def save(self, *steps):
    checkpoints = manager.Checkpoints(self.workdir, keep_latest=5)
    for step in steps:
      checkpoints.save(step, tree(step), {'seconds': 1.5}, 1 / step)
    checkpoints.close()

  def files(self, step):
    return sorted(path for path in (self.directory / str(step)).rglob('*') if path.is_file())

  def reopen(self):
    """Opens and gives the step it offers, with what it printed to stderr."""
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
      checkpoints = self.open(keep_latest=5)
    return checkpoints, stderr.getvalue()

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

  @parameterized.parameters(0, 1, 2, 3)
  def test_older_step_is_used(self, seed):
    self.save(1, 2)
    random_numbers = random.Random(seed)
    path = random_numbers.choice([path for path in self.files(2) if path.stat().st_size])
    content = bytearray(path.read_bytes())
    content[random_numbers.randrange(len(content))] ^= 1
    path.write_bytes(content)
    checkpoints, warning = self.reopen()
    name = path.relative_to(self.directory / '2')
    self.assertEqual(
      warning,
      f'bitnet_jax: warning: step 2: sha256 mismatch in {name}; '
      'moved to damaged/0-step-2, which may be deleted if nobody needs it; using step 1\n',
    )
    restored = checkpoints.restore(checkpoints.latest_step(), tree(0))
    np.testing.assert_array_equal(restored['params']['w'], tree(1)['params']['w'])

  @parameterized.parameters('truncate', 'delete', 'add', 'link', 'link_step')
  def test_changed_files_are_caught(self, change):
    self.save(1, 2)
    secret = pathlib.Path(self.create_tempdir().full_path, 'secret')
    secret.write_text('16 bytes of text')
    largest = max(self.files(2), key=lambda path: path.stat().st_size)
    if change == 'truncate':
      os.truncate(largest, largest.stat().st_size // 2)
    elif change == 'delete':
      largest.unlink()
    elif change == 'add':
      (largest.parent / 'payload.pkl').write_bytes(b'\x80\x04.')
    elif change == 'link':
      largest.unlink()
      largest.symlink_to(secret)
    else:
      shutil.move(self.directory / '2', secret.parent / 'moved')
      (self.directory / '2').symlink_to(secret.parent / 'moved')
    checkpoints, warning = self.reopen()
    self.assertEqual(checkpoints.latest_step(), 1)
    self.assertRegex(warning, 'warning: step 2: .*; using step 1\n$')
    self.assertLen(list(pathlib.Path(self.workdir, 'damaged').iterdir()), 2)

  def test_step_without_a_manifest_was_not_written_whole(self):
    self.save(1, 2)
    pathlib.Path(self.workdir, 'manifests', '2.json').unlink()
    checkpoints, warning = self.reopen()
    self.assertEqual(checkpoints.latest_step(), 1)
    self.assertIn('no manifest', warning)

  def test_only_step_was_killed_before_its_manifest(self):
    self.save(1)
    pathlib.Path(self.workdir, 'manifests', '1.json').unlink()
    checkpoints, warning = self.reopen()
    self.assertIsNone(checkpoints.latest_step())
    self.assertIn('no manifest, so it was not written whole; moved to damaged/0-step-1,', warning)
    self.assertEndsWith(warning, '; none is left\n')

  def test_newest_steps_are_lost(self):
    self.save(1, 2, 3, 4)
    for step in (3, 4):
      shutil.rmtree(self.directory / str(step))
    self.files(2)[0].unlink()
    checkpoints, warning = self.reopen()
    self.assertEqual(checkpoints.latest_step(), 1)
    lines = warning.splitlines()
    self.assertEqual(
      lines[:2], [f'bitnet_jax: warning: step {step} is missing; using step 1' for step in (4, 3)]
    )
    self.assertRegex(lines[2], 'step 2: .*; moved to damaged/0-step-2, .*; using step 1$')

  def test_manifest_of_an_older_step_that_was_deleted_is_no_loss(self):
    """A kill between the two deletions leaves it."""
    self.save(1, 2)
    shutil.rmtree(self.directory / '1')
    self.assertEqual(self.reopen()[1], '')

  def refused(self, line):
    """Opening fails, twice and with the same line, and moves nothing: no run begins anew."""
    before = sorted(pathlib.Path(self.workdir).rglob('*'))
    for _ in range(2):
      with self.assertRaisesRegex(errors.CheckpointError, line) as caught:
        manager.Checkpoints(self.workdir)
      self.assertEqual(caught.exception.exit_code, 4)
    self.assertEqual(sorted(pathlib.Path(self.workdir).rglob('*')), before)

  def test_no_step_is_whole(self):
    self.save(1, 2)
    for step in (1, 2):
      self.files(step)[0].unlink()
    name = '_CHECKPOINT_METADATA is missing'
    self.refused(rf'no step is whole \(step 2: {name}, step 1: {name}\); restore them, or take')

  @parameterized.parameters(2, 3)
  def test_all_manifests_are_lost(self, count):
    self.save(*range(1, count + 1))
    for path in pathlib.Path(self.workdir, 'manifests').iterdir():
      path.unlink()
    self.refused(r'no step is whole .step \d: it has no manifest')

  def test_only_step_is_left_of_several_and_has_no_manifest(self):
    self.save(1, 2)
    shutil.rmtree(self.directory / '2')
    pathlib.Path(self.workdir, 'manifests', '1.json').unlink()
    self.refused('no step is whole .*step 1: it has no manifest')

  def test_all_steps_are_lost(self):
    self.save(1, 2)
    shutil.rmtree(self.directory)
    self.refused('no step is whole .there are manifests alone.')

  def test_foreign_directory_is_refused_and_left_alone(self):
    planted = self.directory / '7' / 'state.pkl'
    planted.parent.mkdir(parents=True)
    planted.write_bytes(b'\x80\x04.')
    with self.assertRaisesRegex(errors.CheckpointError, 'not checkpoints of bitnet_jax'):
      manager.Checkpoints(self.workdir)
    self.assertTrue(planted.exists())

  def test_leftover_of_a_save_is_ignored(self):
    self.save(1)
    leftover = self.directory / '2.orbax-checkpoint-tmp' / 'state'
    leftover.mkdir(parents=True)
    checkpoints, _ = self.reopen()
    self.assertEqual(checkpoints.latest_step(), 1)

  @parameterized.parameters(
    'metric', 'digit', 'metrics_link', 'manifest', 'file', 'foreign', 'link'
  )
  def test_older_step_is_set_aside_with_a_line(self, change):
    """Orbax reads the metrics of all steps, and would delete the best one by them."""
    self.save(1, 2, 3)
    folder, outside = self.directory / '1', pathlib.Path(self.create_tempdir().full_path)
    metrics = folder / 'metrics' / 'metrics'
    if change == 'metric':
      metrics.write_bytes(b'\xff' + metrics.read_bytes()[1:])
    elif change == 'digit':
      metrics.write_text(metrics.read_text().replace('1.0', '0.0'))
    elif change == 'metrics_link':
      metrics.rename(outside / 'metrics')
      metrics.symlink_to(outside / 'metrics')
    elif change == 'manifest':
      pathlib.Path(self.workdir, 'manifests', '1.json').unlink()
    elif change == 'file':
      metrics.unlink()
    elif change == 'foreign':
      folder = folder.with_name('0')
      folder.mkdir()
      (folder / 'thesis.tex').write_text('the only copy')
    else:
      folder.rename(outside / 'step')
      folder.symlink_to(outside / 'step')
    lost = sorted(path.name for path in folder.rglob('*'))
    checkpoints, warning = self.reopen()
    named = 'metrics/metrics' if change in ('metric', 'digit', 'metrics_link', 'file') else 'it '
    moved = f'moved to damaged/0-step-{folder.name}, which may be deleted if nobody needs it'
    self.assertRegex(warning, f'^bitnet_jax: warning: step {folder.name}: .*{named}.*; {moved}\n$')
    self.assertEqual(checkpoints.steps(), [1, 2, 3] if change == 'foreign' else [2, 3])
    self.assertEqual((checkpoints.latest_step(), checkpoints.best_step()), (3, 3))
    aside = pathlib.Path(self.workdir, 'damaged', f'0-step-{folder.name}')
    self.assertEqual(sorted(path.name for path in aside.rglob('*')), lost)
    self.assertEqual(aside.is_symlink(), change == 'link')

  def test_places_of_what_was_set_aside_are_never_used_twice(self):
    self.save(1, 2, 3, 4)
    for step in (3, 4):
      self.files(step)[0].unlink()
    self.reopen()
    for path in pathlib.Path(self.workdir, 'damaged').glob('0-*'):
      shutil.rmtree(path) if path.is_dir() else path.unlink()
    self.files(2)[0].unlink()
    self.reopen()
    names = [path.name for path in pathlib.Path(self.workdir, 'damaged').iterdir()]
    self.assertCountEqual(names, ['0-step-2', '0-step-2.json', '1-step-3', '1-step-3.json'])

  def test_save_in_the_background_that_fails_is_told_and_harms_no_other(self):
    done = subprocess.run(
      [sys.executable, '-c', FULL, self.workdir], capture_output=True, text=True, check=True
    )
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
  def test_save_that_fails_with_room_left_asks_for_no_room(self, fault, remedy):
    checkpoints = self.open()
    checkpoints.save(1, tree(1), {}, None)
    checkpoints.wait()
    with mock.patch.object(ocp.CheckpointManager, 'save', side_effect=fault):
      line = f'workdir=.*: a checkpoint could not be written: .*; {remedy}.*; steps saved before'
      with self.assertRaisesRegex(errors.StorageError, line) as caught:
        checkpoints.save(2, tree(2), {}, None)
    self.assertNotIn('keep_latest', str(caught.exception))

  @parameterized.parameters(errno.EACCES, errno.EIO, errno.ESTALE)
  def test_storage_that_does_not_answer_harms_no_step(self, number):
    self.save(1, 2)
    real = pathlib.Path.open

    def fails(path, *arguments, **options):
      if '/checkpoints/2/' in str(path):
        raise OSError(number, os.strerror(number), str(path))
      return real(path, *arguments, **options)

    with mock.patch.object(pathlib.Path, 'open', fails):
      line = 'checkpoint=.*/checkpoints/2/.*: cannot be read .*; make it readable and run again'
      with self.assertRaisesRegex(errors.StorageError, line):
        self.open()
    self.assertFalse(pathlib.Path(self.workdir, 'damaged').exists())
    self.assertEqual(self.open().latest_step(), 2)

  def test_damaged_step_cannot_be_moved(self):
    self.save(1, 2)
    self.files(2)[0].unlink()
    pathlib.Path(self.workdir, 'damaged').touch()
    with self.assertRaisesRegex(
      errors.StorageError, 'damaged step 2 cannot be moved to .* .File e'
    ):
      self.reopen()

  @parameterized.parameters(
    ('{"files": {"a": {"size": Infinity, "sha256": "aa"}}}',),
    ('{"files": {"a": {"size": NaN, "sha256": "aa"}}}',),
    ('{"files": {"a": {"size": true, "sha256": "aa"}}}',),
    ('{"files": {"a": {"size": 1, "sha256": 2}}}',),
    ('{"files": {"a": []}}',),
    ('{"files": []}',),
    ('[' * 100_000,),
    ('1' * 10_000,),
    ('\x00\xff',),
    (None,),
  )
  def test_hostile_manifest(self, text):
    self.save(1, 2)
    path = pathlib.Path(self.workdir, 'manifests', '2.json')
    path.unlink()
    if text is None:
      os.mkfifo(path)
    else:
      path.write_text(text, encoding='latin-1')
    checkpoints, warning = self.reopen()
    self.assertEqual(checkpoints.latest_step(), 1)
    self.assertIn('warning: step 2: its manifest 2.json is damaged; ', warning)

  def test_metrics_that_a_made_up_manifest_vouches_for(self):
    self.save(1, 2)
    folder = self.directory / '1'
    (folder / 'metrics' / 'metrics').write_text('[')
    manifest.write(folder, pathlib.Path(self.workdir, 'manifests', '1.json'))
    with self.assertRaisesRegex(
      errors.CheckpointError, 'checkpoints=.*cannot be opened .*; take a'
    ):
      self.reopen()

  def test_digits_of_another_script_are_a_step_to_orbax(self):
    self.save(1)
    (self.directory / '1\u0663').mkdir()
    self.refused('checkpoints=.*/1\u0663: does not belong there; move it out of')

  def test_manifest_that_outlived_its_step_is_not_taken_for_that_of_a_new_one(self):
    self.save(1, 2)
    shutil.rmtree(self.directory / '2')
    checkpoints, warning = self.reopen()
    self.assertEqual(warning, 'bitnet_jax: warning: step 2 is missing; using step 1\n')
    checkpoints.save(2, tree(20), {}, None)
    checkpoints.close()
    again, warning = self.reopen()
    self.assertEqual((again.latest_step(), warning), (2, ''))

  def test_each_file_is_hashed_once_at_a_restart(self):
    self.save(1, 2)
    with mock.patch.object(manifest, '_sha256', wraps=manifest._sha256) as hashed:
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
    """The new one often has the number of the old one, if nobody holds that."""
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
