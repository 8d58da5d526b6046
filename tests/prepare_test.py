"""Tests of the command that prepares data sets."""

import fcntl
import json
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

from absl.testing import absltest, parameterized

from bitnet_jax import errors
from bitnet_jax.data.datasets import sources
from tests.helpers.paths import ROOT, program
from tests.helpers.processes import environment, run_program


class PrepareTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.directory = self.enterContext(tempfile.TemporaryDirectory())

  def call(self, *arguments, **variables):
    return subprocess.run(
      [sys.executable, '-m', 'bitnet_jax.prepare', *arguments],
      env=environment(**variables),
      capture_output=True,
      text=True,
      check=False,
    )

  def test_digits_then_again(self):
    path = f'{self.directory}/digits/1.0.0'
    for said in ('prepared', 'already prepared'):
      done = self.call('--dataset=digits', f'--data_dir={self.directory}')
      self.assertEqual(done.stdout, f'digits: {said} in {path} (train 1437, test 360)\n')
      self.assertEqual((done.stderr, done.returncode), ('', 0))
    self.assertLen(sources.open_source('digits', 'train', self.directory), 1437)
    # As the first version left it.
    manifest = pathlib.Path(path, 'manifest.json')
    content = json.loads(manifest.read_text())
    content['files'] = {k: v for k, v in content['files'].items() if '.array_record' in k}
    manifest.write_text(json.dumps(content))
    done = self.call('--dataset=digits', f'--data_dir={self.directory}', '--verify')
    said, advice = done.stdout.splitlines()
    self.assertIn('digits: already prepared and verified in', said)
    self.assertEqual(
      advice,
      'digits: its manifest, of an earlier version, leaves out the names of the classes; '
      f'delete {manifest} and run this again to have them compared too',
    )

  @parameterized.parameters((signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130))
  def test_stopped_in_the_middle_then_again(self, number, code):
    arguments = ('--dataset=digits', f'--data_dir={self.directory}')
    with subprocess.Popen(
      [sys.executable, program('prepare_halted'), *arguments],
      env=environment(),
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
      # A shell that starts the tests in its background has SIGINT ignored.
      preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
      self.assertEqual(process.stdout.readline(), 'halted\n')
      process.send_signal(number)
      said = process.communicate(timeout=60)[1]
    self.assertEqual(process.returncode, code)
    self.assertEqual(said, 'bitnet_jax: interrupted\n' if code == 130 else '')
    with self.assertRaisesRegex(errors.DataError, "'digits' is not prepared"):
      sources.open_source('digits', 'train', self.directory)
    done = self.call(*arguments)
    self.assertEqual((done.stderr, done.returncode), ('', 0))
    self.assertLen(sources.open_source('digits', 'train', self.directory), 1437)
    left = {path.name for path in pathlib.Path(self.directory, 'digits').iterdir()}
    self.assertEqual(left, {'1.0.0', '.lock'})

  def test_waits_for_another_process(self):
    lock = pathlib.Path(self.directory, 'digits', '.lock')
    lock.parent.mkdir()
    command = [sys.executable, '-m', 'bitnet_jax.prepare', '--dataset=digits']
    with lock.open('w') as locked:
      fcntl.flock(locked, fcntl.LOCK_EX)
      process = subprocess.Popen(
        [*command, f'--data_dir={self.directory}'], cwd=ROOT, stdout=subprocess.PIPE, text=True
      )
      # The kernel lists who waits: '12: -> FLOCK  ADVISORY  WRITE 4711 ...'.
      waits = re.compile(rf'-> FLOCK +ADVISORY +WRITE {process.pid} ')
      while not waits.search(pathlib.Path('/proc/locks').read_text()):
        self.assertIsNone(process.poll(), 'did not wait')
        time.sleep(0.05)
      self.assertEqual([path.name for path in lock.parent.iterdir()], ['.lock'])
    self.assertIn('digits: prepared in', process.communicate(timeout=60)[0])
    self.assertEqual(process.returncode, 0)

  def test_default_directory(self):
    done = self.call('--dataset=digits', TFDS_DATA_DIR=self.directory)
    self.assertIn(f'prepared in {self.directory}/digits/1.0.0', done.stdout)

  @parameterized.parameters(
    (['--dataset=digits'], 0), (['--dataset=cifar10', '--archive_dir=/absent'], 3), (['--help'], 0)
  )
  def test_leaves_tensorflow_unloaded(self, arguments, code):
    arguments = 'tensorflow', 'bitnet_jax.prepare', *arguments, f'--data_dir={self.directory}'
    done = run_program('watched_command', *arguments)
    self.assertEqual(done.stdout.splitlines()[-1], '[]')
    self.assertEqual(done.returncode, code)

  def test_wrong_archive(self):
    archive = pathlib.Path(self.directory, 'cifar-10-binary.tar.gz')
    archive.write_bytes(b'')
    done = self.call(
      '--dataset=cifar10', f'--archive_dir={self.directory}', f'--data_dir={self.directory}/data'
    )
    self.assertEqual(
      done.stderr,
      f'bitnet_jax: error: archive={archive}: wrong checksum, expected '
      'c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd, got '
      'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855; fetch '
      'https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz again\n',
    )
    self.assertEqual((done.stdout, done.returncode), ('', 3))

  @parameterized.parameters(
    ([], 'dataset=: required; give --dataset=VALUE'),
    (['--dataset=digits', '--datadir=x'], 'datadir=x: unknown flag; did you mean --data_dir?'),
  )
  def test_bad_flags(self, arguments, line):
    done = self.call(*arguments)
    self.assertStartsWith(done.stderr, f'bitnet_jax: error: {line}')
    self.assertLen(done.stderr.splitlines(), 1)
    self.assertEqual(done.returncode, 2)

  def test_no_network(self):
    # A proxy that refuses: what a machine without a network looks like, at once.
    done = self.call(
      '--dataset=cifar10', f'--data_dir={self.directory}', HTTPS_PROXY='http://127.0.0.1:9'
    )
    self.assertStartsWith(
      done.stderr,
      'bitnet_jax: error: dataset=https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz: '
      'cannot be reached (',
    )
    self.assertEndsWith(
      done.stderr, '; fetch cifar-10-binary.tar.gz on another machine and give --archive_dir=DIR\n'
    )
    self.assertLen(done.stderr.splitlines(), 1)
    self.assertEqual(done.returncode, 3)

  def test_data_dir_that_is_a_file(self):
    path = pathlib.Path(self.directory, 'file')
    path.touch()
    done = self.call('--dataset=digits', f'--data_dir={path}')
    self.assertEqual(
      done.stderr,
      f'bitnet_jax: error: data_dir={path}: File exists; name a directory that you may write to\n',
    )
    self.assertEqual(done.returncode, 6)


if __name__ == '__main__':
  absltest.main()
