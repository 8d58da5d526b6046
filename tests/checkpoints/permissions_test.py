"""Commands that may not read or write what they need: one line that names it, the right code."""

import contextlib
import os
import pathlib
import sys
import tempfile

from absl.testing import absltest

from bitnet_jax.data.datasets import prepared
from tests.helpers import fake_run, train_process, unprivileged


@absltest.unittest.skipUnless(unprivileged.possible(), 'no permissions stop this user')
class PermissionsTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
    cls.data = cls.folder / 'data'
    prepared.prepare('digits', str(cls.data))
    cls.run_dir = cls.folder / 'run'
    cls.run_dir.mkdir()
    fake_run.make_run(str(cls.run_dir), fake_run.make_config(str(cls.data)), seeds=(1, 2))

  def fails(self, code, line, command, *arguments):
    done = unprivileged.run(
      *(sys.executable, '-m', f'bitnet_jax.{command}', *map(str, arguments)),
      cwd=self.folder,
      env={**os.environ, 'PYTHONPATH': str(train_process.ROOT)},
    )
    self.assertRegex(done.stderr, rf'\Abitnet_jax: error: {line}.*\n\Z')
    self.assertEqual((done.returncode, done.stdout), (code, ''))

  @contextlib.contextmanager
  def mode(self, path, mode):
    before = path.stat().st_mode
    path.chmod(mode)
    try:
      yield path
    finally:
      path.chmod(before)

  def read_only(self):
    return self.mode(pathlib.Path(self.create_tempdir().full_path), 0o500)

  def train(self, workdir):
    digits = f'--config={train_process.ROOT}/configs/digits_bitnet.py'
    return 'main', digits, f'--workdir={workdir}', f'--config.data.dir={self.data}'

  def test_work_directory_is_read_only(self):
    with self.read_only() as place:
      for path in (place, place / 'new'):
        line = f'workdir={path}: Permission denied; name a directory that can be written'
        self.fails(6, line, *self.train(path))

  def test_prepared_data_cannot_be_written(self):
    with self.read_only() as place:
      line = f'data_dir={place}: Permission denied; name a directory that you may write to'
      self.fails(6, line, 'prepare', '--dataset=digits', f'--data_dir={place}')

  def test_shard_or_data_manifest_cannot_be_read(self):
    [shard] = self.data.glob('digits/*/digits-test.array_record*')
    with self.mode(shard, 0):
      self.fails(6, f'file={shard}: Permission denied; ', *self.train(self.folder / 'new'))
    with self.mode(shard.parent / 'manifest.json', 0) as manifest:
      line = f'manifest={manifest}: cannot be read '
      self.fails(3, line, 'prepare', '--dataset=digits', f'--data_dir={self.data}')

  def test_checkpoint_cannot_be_read(self):
    """It may be whole: nothing is moved, and no other taken in its place."""
    state = self.run_dir / 'checkpoints' / '2' / 'state'
    [file, *_] = sorted(path for path in state.rglob('*') if path.is_file())
    with self.mode(file, 0):
      line = f'checkpoint={file}: cannot be read .Permission denied.; '
      self.fails(6, line, 'evaluate', f'--workdir={self.run_dir}', '--step=2')
      self.fails(6, line, *self.train(self.run_dir))
    self.assertTrue(file.exists())

  def test_image_cannot_be_read(self):
    image = self.folder / 'a.png'
    image.touch()
    with self.mode(image, 0):
      line = f'image={image}: Permission denied; name an image file'
      self.fails(3, line, 'predict', f'--workdir={self.run_dir}', image)


if __name__ == '__main__':
  absltest.main()
