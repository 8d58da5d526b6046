"""Output that nobody takes: a reader that has gone, a full disk, a stream that was never there."""

import os
import pathlib
import signal
import subprocess
import sys

from absl.testing import absltest, parameterized

from tests.helpers import train_process

FULL = pathlib.Path('/dev/full')
# A command that prints more than is held back, or less; another one outlives its readers.
PRINTS = """
import os, sys
from bitnet_jax.runtime import cli
from bitnet_jax.runtime import output
from bitnet_jax.runtime import preemption
def main(argv):
  if argv[2:]:
    output.ignore_broken_pipes()
    preemption.install_handlers()
  for number in range(int(argv[1])):
    print('x' * 100)
  print('said', file=sys.stderr)
  if argv[2:]:
    os.kill(os.getpid(), 15)
    assert preemption.requested()
    return 75
cli.run(main, ['command', *sys.argv[1:]], takes_arguments=True)
"""
FEW, MANY = 1, 10_000
WARNING = 'bitnet_jax: warning: stdout cannot be written: {}; the run goes on without it\n'
ONE_EPOCH = {'num_epochs': 1}


def without(number, command):
  """The command, started without a descriptor."""
  return ['bash', '-c', f'exec "$@" {number}>&-', 'bash', *command]


def program(*arguments, closes=None, **streams):
  """The command; `closes` is a descriptor that it starts without."""
  command = [sys.executable, '-c', PRINTS, *map(str, arguments)]
  return subprocess.run(
    command if closes is None else without(closes, command),
    cwd=train_process.ROOT,
    env={**os.environ, 'PYTHONUNBUFFERED': ''},
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
    done = program(lines, stdout=self.unread(), stderr=subprocess.PIPE)
    self.assertEqual((done.returncode, done.stderr.replace('said\n', '')), (141, ''))
    unread = self.unread()
    self.assertEqual(program(lines, stdout=unread, stderr=unread).returncode, 141)

  @parameterized.parameters(FEW, MANY)
  def test_reader_gone_does_not_end_what_outlives_it(self, lines):
    done = program(lines, 'on', stdout=self.unread(), stderr=subprocess.PIPE)
    said = 'said\n\nbitnet_jax: SIGTERM: saving and stopping\n'
    self.assertEqual(done.returncode, 75)
    # What is held back is tried at the end.
    self.assertEqual(done.stderr.replace(WARNING.format('Broken pipe'), '', 1), said)
    self.assertIn('warning', done.stderr)
    unread = self.unread()
    self.assertEqual(program(lines, 'on', stdout=unread, stderr=unread).returncode, 75)

  @absltest.unittest.skipUnless(FULL.exists(), f'needs {FULL}')
  def test_full_disk(self):
    with FULL.open('w') as full:
      done = program(FEW, stdout=full, stderr=subprocess.PIPE)
      line = 'file=stdout: No space left on device; free space there, or write elsewhere'
      self.assertEqual(done.stderr, f'said\nbitnet_jax: error: {line}\n')
      self.assertEqual(done.returncode, 6)
      self.assertEqual(program(MANY, stdout=full, stderr=full).returncode, 6)
      done = program(MANY, 'on', stdout=full, stderr=subprocess.PIPE)
      self.assertStartsWith(done.stderr, WARNING.format('No space left on device') + 'said\n')
      self.assertEqual(done.returncode, 75)

  @parameterized.product(closes=(0, 1, 2), on=((), ('on',)))
  def test_stream_that_was_never_there(self, closes, on):
    done = program(FEW, *on, closes=closes, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
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

  def test_signal_after_the_reader_of_both_streams_has_gone(self):
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

  def test_run_without_stderr_whose_reader_goes_ends_as_any(self):
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
