"""Steps that are damaged or incomplete are set aside, or refused where none is whole."""

import errno
import os
import pathlib
import random
import shutil
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized

from bitnet_jax import errors
from bitnet_jax.checkpoints import manager, manifest
from bitnet_jax.runtime import files
from tests.helpers.checkpoint_case import CheckpointCase, tree


class QuarantineTest(CheckpointCase):
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

  def test_step_without_a_manifest_is_passed_over(self):
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

  def test_manifest_of_a_deleted_older_step_is_no_loss(self):
    """A kill between the two deletions leaves it."""
    self.save(1, 2)
    shutil.rmtree(self.directory / '1')
    self.assertEqual(self.reopen()[1], '')

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

  def test_last_of_several_steps_has_no_manifest(self):
    self.save(1, 2)
    shutil.rmtree(self.directory / '2')
    pathlib.Path(self.workdir, 'manifests', '1.json').unlink()
    self.refused('no step is whole .*step 1: it has no manifest')

  def test_all_steps_are_lost(self):
    self.save(1, 2)
    shutil.rmtree(self.directory)
    self.refused('no step is whole .there are manifests alone.')

  def test_unknown_directory_is_refused_and_left_alone(self):
    planted = self.directory / '7' / 'state.pkl'
    planted.parent.mkdir(parents=True)
    planted.write_bytes(b'\x80\x04.')
    with self.assertRaisesRegex(errors.CheckpointError, 'not checkpoints of bitnet_jax'):
      manager.Checkpoints(self.workdir)
    self.assertTrue(planted.exists())

  @parameterized.parameters(
    'metric', 'digit', 'metrics_link', 'manifest', 'file', 'unknown', 'link'
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
    elif change == 'unknown':
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
    self.assertEqual(checkpoints.steps(), [1, 2, 3] if change == 'unknown' else [2, 3])
    self.assertEqual((checkpoints.latest_step(), checkpoints.best_step()), (3, 3))
    aside = pathlib.Path(self.workdir, 'damaged', f'0-step-{folder.name}')
    self.assertEqual(sorted(path.name for path in aside.rglob('*')), lost)
    self.assertEqual(aside.is_symlink(), change == 'link')

  def test_places_of_damaged_steps_are_used_once(self):
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

  @parameterized.parameters(errno.EACCES, errno.EIO, errno.ESTALE)
  def test_storage_that_does_not_answer_harms_no_step(self, number):
    self.save(1, 2)
    real = files.sha256

    def fails(path, **options):
      if '/checkpoints/2/' in str(path):
        raise OSError(number, os.strerror(number), str(path))
      return real(path, **options)

    with mock.patch.object(files, 'sha256', fails):
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

  def test_manifest_of_a_lost_step_is_not_reused(self):
    self.save(1, 2)
    shutil.rmtree(self.directory / '2')
    checkpoints, warning = self.reopen()
    self.assertEqual(warning, 'bitnet_jax: warning: step 2 is missing; using step 1\n')
    checkpoints.save(2, tree(20), {}, None)
    checkpoints.close()
    again, warning = self.reopen()
    self.assertEqual((again.latest_step(), warning), (2, ''))


if __name__ == '__main__':
  absltest.main()
