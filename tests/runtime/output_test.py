"""Output that nobody takes: a reader that has gone, a full disk, a stream that was never there."""

import os
import pathlib
import signal
import subprocess
import sys

from absl.testing import absltest, parameterized

from tests.helpers import train_process
from tests.helpers.paths import program
from tests.helpers.processes import environment

FULL = pathlib.Path('/dev/full')
# Lines of the command; it buffers many of them.
FEW, MANY = 1, 10_000
WARNING = 'bitnet_jax: warning: stdout cannot be written: {}; the run goes on without it\n'
ONE_EPOCH = {'num_epochs': 1}


def without(number, command):
  """The command, started without a descriptor."""
  return ['bash', '-c', f'exec "$@" {number}>&-', 'bash', *command]


def run(*arguments, closes=None, **streams):
  """Runs the command; `closes` is a descriptor that it starts without."""
  command = [sys.executable, program('printing_command'), *map(str, arguments)]
  return subprocess.run(
    command if closes is None else without(closes, command),
    env=environment(PYTHONUNBUFFERED=''),
    text=True,
    timeout=60,
    **streams,
  )


class CommandTest(parameterized.TestCase):
  def unread(self):
    """A pipe whose reader has gone."""
    reader, writer = os.pipe()
    os.close(reader)
    self.addCleanup(os.close, writer)
    return writer

  @parameterized.parameters(FEW, MANY)
  def test_reader_gone_ends_a_command(self, lines):
    done = run(lines, stdout=self.unread(), stderr=subprocess.PIPE)
    self.assertEqual((done.returncode, done.stderr.replace('said\n', '')), (141, ''))
    unread = self.unread()
    self.assertEqual(run(lines, stdout=unread, stderr=unread).returncode, 141)

  @parameterized.parameters(FEW, MANY)
  def test_reader_gone_does_not_end_what_outlives_it(self, lines):
    done = run(lines, 'on', stdout=self.unread(), stderr=subprocess.PIPE)
    said = 'said\n\nbitnet_jax: SIGTERM: saving and stopping\n'
    self.assertEqual(done.returncode, 75)
    # What is buffered is written at the end.
    self.assertEqual(done.stderr.replace(WARNING.format('Broken pipe'), '', 1), said)
    self.assertIn('warning', done.stderr)
    unread = self.unread()
    self.assertEqual(run(lines, 'on', stdout=unread, stderr=unread).returncode, 75)

  @absltest.unittest.skipUnless(FULL.exists(), f'needs {FULL}')
  def test_full_disk(self):
    with FULL.open('w') as full:
      done = run(FEW, stdout=full, stderr=subprocess.PIPE)
      line = 'file=stdout: No space left on device; free space there, or write elsewhere'
      self.assertEqual(done.stderr, f'said\nbitnet_jax: error: {line}\n')
      self.assertEqual(done.returncode, 6)
      self.assertEqual(run(MANY, stdout=full, stderr=full).returncode, 6)
      done = run(MANY, 'on', stdout=full, stderr=subprocess.PIPE)
      self.assertStartsWith(done.stderr, WARNING.format('No space left on device') + 'said\n')
      self.assertEqual(done.returncode, 75)

  @parameterized.product(closes=(0, 1, 2), on=((), ('on',)))
  def test_stream_that_was_never_there(self, closes, on):
    done = run(FEW, *on, closes=closes, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    self.assertEqual(done.returncode, 75 if on else 0, done.stderr)
    self.assertEqual(done.stdout, '' if closes == 1 else 'x' * 100 + '\n')
    self.assertEqual('said\n' in done.stderr, closes != 2)
    self.assertNotIn('warning', done.stderr)


class RunTest(train_process.DataCase):
  """Real runs."""

  def start(self, workdir, *, fields=None, closes=None, **options):
    command = train_process.command(workdir, self.data_dir, fields or ONE_EPOCH)
    process = subprocess.Popen(
      command if closes is None else without(closes, command),
      env=train_process.environment(1),
      cwd=self.folder,
      **options,
    )
    self.addCleanup(process.kill)
    return process

  def read_until(self, process, marker):
    """Reads stdout up to a line, then no more: the reader has gone."""
    with process.stdout:
      for line in process.stdout:
        if marker in line:
          return
    raise AssertionError(f'{marker!r} did not come')

  def test_signal_after_the_readers_have_gone(self):
    """As Ctrl-C does in a terminal with `2>&1 | tee`."""
    workdir = self.folder / 'tee'
    run = self.start(
      workdir,
      fields={'num_epochs': 200},
      stdout=subprocess.PIPE,
      stderr=subprocess.STDOUT,
      text=True,
    )
    self.read_until(run, 'step 6/')
    run.send_signal(signal.SIGINT)
    self.assertEqual(run.wait(train_process.TIMEOUT), 75)
    saved = max(int(path.name) for path in (workdir / 'checkpoints').iterdir())
    self.assertGreaterEqual(saved, 6)
    self.assertTrue((workdir / 'manifests' / f'{saved}.json').exists())
    self.assertEqual(train_process.rows(workdir)[-1]['step'], saved)

  def test_run_without_stderr_whose_reader_has_gone(self):
    """With hashes of shards, whose bar is on stderr."""
    workdir = self.folder / 'reader'
    run = self.start(workdir, stdout=subprocess.PIPE, text=True, closes=2)
    self.read_until(run, 'step 6/')
    self.assertEqual(run.wait(train_process.TIMEOUT), 0)
    self.assertTrue((workdir / 'result.json').exists())

  @absltest.unittest.skipUnless(FULL.exists(), f'needs {FULL}')
  def test_full_disk_under_stdout(self):
    workdir = self.folder / 'full'
    with FULL.open('w') as full:
      run = self.start(workdir, stdout=full, stderr=subprocess.PIPE, text=True)
      self.assertEqual(run.communicate()[1], WARNING.format('No space left on device'))
    self.assertEqual(run.returncode, 0)
    self.assertTrue((workdir / 'result.json').exists())


if __name__ == '__main__':
  absltest.main()
