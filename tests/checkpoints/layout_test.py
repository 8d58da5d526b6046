"""What does not belong beside checkpoints is refused before any of it is opened."""

import os
import pathlib
import shutil
import tempfile

import numpy as np
from absl.testing import absltest, parameterized

from bitnet_jax import errors
from bitnet_jax.checkpoints import layout, manager, pretrained

STATE = {'params': {'w': np.ones(300)}}


def save(workdir, step):
  checkpoints = manager.Checkpoints(str(workdir))
  checkpoints.save(step, STATE, {}, None)
  checkpoints.close()


class LayoutTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.whole = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
    save(cls.whole, 1)

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.workdir = self.folder / 'run'
    shutil.copytree(self.whole, self.workdir)

  @parameterized.parameters(
    ('checkpoints', 'is a link or no directory'),
    ('manifests', 'is a link or no directory'),
    ('damaged', 'is a link'),
    ('checkpoints/evil.pkl', 'does not belong there'),
    ('checkpoints/01', 'does not belong there'),
    ('checkpoints/latest', 'does not belong there'),
    ('checkpoints/2.orbax-checkpoint-tmp', 'is not what a save leaves'),
    ('checkpoints/2.orbax-checkpoint-tmp-17', 'is not what a save leaves'),
    ('manifests/2.json.bak', 'does not belong there'),
    ('manifests/.2.json.tmp', 'is not what a save leaves'),
  )
  def test_link_is_refused(self, name, problem):
    place, outside = self.workdir / name, self.folder / 'outside'
    if place.exists():
      place.rename(outside)
    else:
      outside.mkdir()
      (outside / 'thesis.tex').write_text('the only copy')
    place.symlink_to(outside)
    before = sorted(self.folder.rglob('*'))
    line = f'checkpoints={place}: {problem}; move it out of the work directory, or take a new'
    for use in (manager.Checkpoints, pretrained.load):
      with self.assertRaisesRegex(errors.CheckpointError, line) as caught:
        use(str(self.workdir))
      self.assertEqual(caught.exception.exit_code, 4)
    self.assertEqual(sorted(self.folder.rglob('*')), before)

  @parameterized.parameters(
    'checkpoints/evil.pkl', 'checkpoints/1.orbax-checkpoint-tmp', 'manifests/evil'
  )
  def test_file_is_refused(self, name):
    (self.workdir / name).write_bytes(b'\x80\x04.')
    with self.assertRaisesRegex(errors.CheckpointError, f'{name}: (does not belong|is not what)'):
      manager.Checkpoints(str(self.workdir))
    self.assertTrue((self.workdir / name).exists())

  def test_what_saves_leave_is_passed_over(self):
    (self.workdir / 'checkpoints' / '2.orbax-checkpoint-tmp' / 'state').mkdir(parents=True)
    (self.workdir / 'manifests' / '.2.json.tmp').touch()
    self.assertEqual(layout.list_steps(self.workdir), ([1], [1]))
    save(self.workdir, 2)
    self.assertEqual(layout.list_steps(self.workdir), ([1, 2], [1, 2]))
    names = {path.name for path in (self.workdir / 'manifests').iterdir()}
    self.assertEqual(names, {'1.json', '2.json'})

  def test_nothing_there(self):
    self.assertEqual(layout.list_steps(self.folder), ([], []))

  def test_unrestorable_step_gets_no_manifest(self):
    """Orbax takes the path for a pattern, finds none of its files and says nothing."""
    workdir = self.folder / 'run[1]'
    with self.assertRaisesRegex(
      errors.StorageError, 'checkpoint=.*/checkpoints/1: was saved without state/manifest.ocdbt;'
    ):
      save(workdir, 1)
    self.assertEqual(os.listdir(workdir / 'manifests'), [])


if __name__ == '__main__':
  absltest.main()
