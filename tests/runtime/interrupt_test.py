"""SIGINT while a command's libraries are being imported."""

import pathlib
import signal
import subprocess
import sys

from absl.testing import absltest, parameterized

from tests.helpers.paths import program
from tests.helpers.processes import environment

LIBRARY = pathlib.Path(program('interrupting_library')).read_text()
OTHERS = pathlib.Path(program('interrupted_program')).read_text()


class InterruptTest(parameterized.TestCase):
  def run_with(self, handler, *command, **files):
    folder = pathlib.Path(self.create_tempdir().full_path)
    for name, text in files.items():
      (folder / f'{name}.py').write_text(text)
    return subprocess.run(
      [sys.executable, *command],
      cwd=folder,
      env=environment(),
      preexec_fn=lambda: signal.signal(signal.SIGINT, handler),
      capture_output=True,
      text=True,
      timeout=60,
    )

  @parameterized.parameters(
    ('main', 'ml_collections'),
    ('prepare', 'tensorflow_datasets'),
    ('audit', 'jax'),
    ('analysis.curves', 'matplotlib'),
    ('evaluate', 'jax', '--workdir=w'),
    ('predict', 'jax', '--workdir=w', 'a.png'),
  )
  def test_in_an_import(self, command, library, *arguments):
    command = '-m', f'bitnet_jax.{command}', *arguments
    done = self.run_with(signal.SIG_DFL, *command, **{library: LIBRARY})
    self.assertEqual((done.stdout, done.stderr), ('', 'bitnet_jax: interrupted\n'))
    self.assertEqual(done.returncode, 130)

  def test_ignored_signal_stays_ignored(self):
    """As in a shell's background."""
    done = self.run_with(signal.SIG_IGN, '-m', 'bitnet_jax.main', ml_collections=LIBRARY)
    self.assertEqual((done.stdout, done.returncode), ('went on\n', 9))

  @parameterized.parameters((('-c', OTHERS),), (('-m', 'others'),), (('others.py',),))
  def test_other_programs_keep_theirs(self, command):
    done = self.run_with(signal.SIG_DFL, *command, others=OTHERS)
    self.assertEqual((done.stdout, done.stderr, done.returncode), ('raised\n', '', 0))


if __name__ == '__main__':
  absltest.main()
