"""Paths on the command lines: ~ is a home directory, a URL no place to work in."""

import os
import pathlib
import subprocess
import sys
import tempfile

from absl.testing import absltest, parameterized

from bitnet_jax import errors
from bitnet_jax.runtime import path_flags
from tests.helpers.paths import ROOT

DIGITS = f'--config={ROOT}/configs/digits_bitnet.py'
URL = 'gs://bucket/x'


class LocalTest(parameterized.TestCase):
  @parameterized.parameters(
    'gs://bucket/run', 's3://b', 'file:///run', 'http://host', 'svn+ssh://h', 'A.b-c://'
  )
  def test_url(self, path):
    with self.assertRaisesRegex(errors.ConfigError, f'workdir={path}: a URL; '.replace('+', '.')):
      path_flags.local('workdir', path)

  @parameterized.parameters('', 'a/b', '/a', 'a:b', 'gs:/bucket', './gs://bucket', '1://x', 'x~/y')
  def test_path_stays(self, path):
    self.assertEqual(path_flags.local('workdir', path), path)


class CommandTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.home, self.here = (
      pathlib.Path(self.enterContext(tempfile.TemporaryDirectory())) for _ in range(2)
    )

  def call(self, command, *arguments):
    done = subprocess.run(
      [sys.executable, '-m', f'bitnet_jax.{command}', *arguments],
      cwd=self.here,
      env={**os.environ, 'PYTHONPATH': str(ROOT), 'HOME': str(self.home)},
      capture_output=True,
      text=True,
      timeout=60,
    )
    self.assertEmpty(list(self.here.iterdir()))
    return done

  @parameterized.parameters(
    ('main', 'workdir', (DIGITS, f'--workdir={URL}')),
    ('main', 'workdir', (DIGITS, '--workdir', URL)),
    ('main', 'config.data.dir', (DIGITS, '--workdir=w', f'--config.data.dir={URL}')),
    ('main', 'config.init_from', (DIGITS, '--workdir=w', f'--config.init_from={URL}')),
    ('evaluate', 'workdir', (f'--workdir={URL}',)),
    ('evaluate', 'data_dir', ('--workdir=w', f'--data_dir={URL}')),
    ('predict', 'csv', ('--workdir=w', f'--csv={URL}', 'a.png')),
    ('prepare', 'data_dir', ('--dataset=digits', f'--data_dir={URL}')),
    ('analysis.curves', 'workdir', ('--workdir=w', f'--workdir={URL}', '--output=f.png')),
  )
  def test_url_is_refused(self, command, field, arguments):
    done = self.call(command, *arguments)
    line = f'{field}={URL}: a URL; mount or copy it, and name a directory or file of this machine'
    self.assertEqual(done.stderr, f'bitnet_jax: error: {line}\n')
    self.assertEqual((done.returncode, done.stdout), (2, ''))

  def test_home_of_a_run(self):
    (self.home / 'file').touch()
    for command, arguments, line in (
      ('main', (DIGITS, '--workdir=~/file'), 'workdir={}/file: File exists; '),
      (
        'main',
        (DIGITS, '--workdir=~/run', '--config.data.dir=~/data'),
        "config.data.dir={}/data: 'digits' is not prepared; ",
      ),
      ('evaluate', ('--workdir=~/run',), 'workdir={}/run: holds no checkpoints; '),
      ('predict', ('--workdir=w', '--csv=~/no/x.csv', 'a'), 'csv={}/no/x.csv: no such directory; '),
    ):
      done = self.call(command, *arguments)
      self.assertStartsWith(done.stderr, f'bitnet_jax: error: {line.format(self.home)}')
    self.assertTrue((self.home / 'run').is_dir())

  def test_home_of_a_data_set(self):
    for said in ('', 'already '):
      done = self.call('prepare', '--dataset=digits', '--data_dir=~/data')
      self.assertIn(f'digits: {said}prepared in {self.home}/data/digits/1.0.0 (', done.stdout)


if __name__ == '__main__':
  absltest.main()
