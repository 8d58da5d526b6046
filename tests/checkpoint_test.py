"""Checkpoints keep the newest and the best, give back the bits they took, or say what is wrong."""

import contextlib
import io
import json
import os
import pathlib
import random
import shutil

import numpy as np
from absl.testing import absltest, parameterized

from bitnet_jax import checkpoint, errors, manifest


def tree(value):
  rng = np.random.default_rng(value)
  return {'step': np.array(value, np.int32), 'params': {'w': rng.normal(size=(3, 4, 5))}}


class CheckpointTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.workdir = self.create_tempdir().full_path
    self.directory = pathlib.Path(self.workdir, 'checkpoints')

  def open(self, **options):
    checkpoints = checkpoint.Checkpoints(self.workdir, **options)
    self.addCleanup(checkpoints.close)
    return checkpoints

  def save(self, *steps):
    checkpoints = checkpoint.Checkpoints(self.workdir, keep_latest=5)
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

  def test_flipped_bits_are_caught(self):
    """200 random flips of one bit, in any file of a step or its manifest: none is silent."""
    self.save(1)
    random_numbers = random.Random(0)
    manifest_path = pathlib.Path(self.workdir, 'manifests', '1.json')
    folder = self.directory / '1'
    paths = [path for path in self.files(1) if path.stat().st_size]
    for _ in range(200):
      path = random_numbers.choice([*paths, manifest_path])
      whole = path.read_bytes()
      content = bytearray(whole)
      content[random_numbers.randrange(len(content))] ^= 1 << random_numbers.randrange(8)
      path.write_bytes(content)
      if path == manifest_path:
        try:
          harmless = json.loads(content) == json.loads(whole)
        except ValueError:
          harmless = False
      else:
        harmless = False
      self.assertEqual(manifest.problem(folder, manifest_path) == '', harmless, path)
      path.write_bytes(whole)
    self.assertEqual(manifest.problem(folder, manifest_path), '')

  @parameterized.parameters(0, 1, 2, 3)
  def test_older_step_is_used(self, seed):
    self.save(1, 2)
    random_numbers = random.Random(seed)
    path = random_numbers.choice([path for path in self.files(2) if path.stat().st_size])
    content = bytearray(path.read_bytes())
    content[random_numbers.randrange(len(content))] ^= 1
    path.write_bytes(content)
    checkpoints, warning = self.reopen()
    line = f'step 2: sha256 mismatch in {path.relative_to(self.directory / "2")}; trying step 1\n'
    self.assertEqual(warning, f'bitnet_jax: warning: {line}')
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
    self.assertRegex(warning, 'warning: step 2: .*; trying step 1')
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
    self.assertIn('no manifest, so it was not written whole; none is left', warning)

  def test_no_step_is_whole(self):
    self.save(1, 2)
    for step in (1, 2):
      self.files(step)[0].unlink()
    with (
      contextlib.redirect_stderr(io.StringIO()),
      self.assertRaisesRegex(errors.CheckpointError, 'no step is whole') as caught,
    ):
      checkpoint.Checkpoints(self.workdir)
    self.assertEqual(caught.exception.exit_code, 4)

  def test_foreign_directory_is_refused_and_left_alone(self):
    planted = self.directory / '7' / 'state.pkl'
    planted.parent.mkdir(parents=True)
    planted.write_bytes(b'\x80\x04.')
    with self.assertRaisesRegex(errors.CheckpointError, 'not checkpoints of bitnet_jax'):
      checkpoint.Checkpoints(self.workdir)
    self.assertTrue(planted.exists())

  def test_leftover_of_a_save_is_ignored(self):
    self.save(1)
    leftover = self.directory / '2.orbax-checkpoint-tmp' / 'state'
    leftover.mkdir(parents=True)
    checkpoints, _ = self.reopen()
    self.assertEqual(checkpoints.latest_step(), 1)

  def test_damage_while_running_is_found_at_restore(self):
    self.save(1)
    checkpoints, _ = self.reopen()
    self.files(1)[0].write_bytes(b'other')
    with self.assertRaisesRegex(errors.CheckpointError, 'checkpoint=.*/1: .*'):
      checkpoints.restore(1, tree(0))


if __name__ == '__main__':
  absltest.main()
