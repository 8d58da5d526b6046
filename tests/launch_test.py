"""The launch scripts on a fresh checkout: what is missing or full, and an install cut short."""

import os
import pathlib
import signal
import stat
import subprocess
import sys
import tempfile
import time

from absl.testing import absltest, parameterized

from tests.helpers import launch
from tests.helpers.paths import ROOT


class FreshCheckoutTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.parent = self.enterContext(tempfile.TemporaryDirectory())
    self.checkout = launch.make_checkout(self.parent)

  def _fake(self, name: str, script: str) -> str:
    """Puts a command in front of the path; returns the path."""
    directory = pathlib.Path(self.parent, 'fakes')
    directory.mkdir(exist_ok=True)
    (directory / name).write_text('#!/bin/sh\n' + script + '\n')
    (directory / name).chmod(stat.S_IRWXU)
    return f'{directory}:{os.environ["PATH"]}'

  def _assert_one_line(self, done: subprocess.CompletedProcess, pattern: str, code: int):
    self.assertRegex(done.stderr, rf'\Abitnet_jax: error: {pattern}\n\Z')
    self.assertEqual(done.stderr.count('\n'), 1)
    self.assertEqual(done.returncode, code)

  @parameterized.parameters('test.sh', 'quickstart.sh')
  def test_no_python_that_is_new_enough(self, script):
    old = 'import sys; sys.version_info = (3, 10, 14); exec(sys.argv[1])'
    for name in launch.PYTHONS:
      path = self._fake(name, f'exec "{sys.executable}" "$1" "$2" "{old}" "$3"')
    done = launch.run(self.checkout, script, PATH=path, PYTHON='')
    self._assert_one_line(done, 'PYTHON=python3: not found, or older than 3.11; .*', 2)

  def test_stand_ins_that_do_not_start_are_passed_over(self):
    for name in launch.PYTHONS:
      path = self._fake(name, 'echo no such version >&2; exit 127')
    path = self._fake('python3.13', f'exec "{sys.executable}" "$@"')
    path = self._fake('df', 'echo "/dev/x 1 1 1024 1% /"')
    done = launch.run(self.checkout, 'test.sh', PATH=path, PYTHON='')
    self._assert_one_line(done, 'VENV=.* 1 MB free .*', 6)

  def test_chosen_python_is_the_only_one_tried(self):
    done = launch.run(self.checkout, 'test.sh', PYTHON='/no such/python')
    self._assert_one_line(done, 'PYTHON=/no such/python: not found.*', 2)

  def test_venv_module_is_missing(self):
    for name in launch.PYTHONS:
      script = f'case "$*" in *ensurepip*) exit 1 ;; esac; exec "{sys.executable}" "$@"'
      path = self._fake(name, script)
    done = launch.run(self.checkout, 'test.sh', PATH=path, PYTHON='')
    self._assert_one_line(done, 'PYTHON=python3.*: its venv module is missing; .*', 2)

  def test_disk_is_full(self):
    for free_mb, starts in ((2499, False), (2500, True)):
      path = self._fake('df', f'printf "Filesystem\\n/dev/x 9 9 {free_mb * 1024} 9%% /\\n"')
      # Where the space suffices, the venv that cannot be made ends the script.
      self._fake('python3', f'case "$*" in *-m*) exit 1 ;; esac; exec "{sys.executable}" "$@"')
      done = launch.run(self.checkout, 'test.sh', PATH=path, PYTHON='')
      if starts:
        self._assert_one_line(done, 'VENV=.*: python3 -m venv failed; see .*/install.log', 1)
      else:
        self._assert_one_line(done, 'VENV=.*/a b/checkout/.venv: its disk has 2499 MB free .*', 6)

  def test_index_cannot_be_reached(self):
    setup = (ROOT / 'pyproject.toml').read_text()
    (self.checkout / 'pyproject.toml').write_text(setup)
    done = launch.run(self.checkout, 'test.sh', PIP_INDEX_URL='http://127.0.0.1:9', PIP_RETRIES='1')
    log = self.checkout / '.venv/install.log'
    pattern = rf'pip install -e \.\[test\]: the package index cannot be reached; details in {log}'
    self._assert_one_line(done, pattern, 1)
    self.assertIn('Connection refused', log.read_text())

  def test_place_of_the_environment_is_taken(self):
    venv = pathlib.Path(self.parent, 'mine')
    venv.mkdir()
    (venv / 'thesis.txt').write_text('years of work')
    done = launch.run(self.checkout, 'test.sh', VENV=str(venv))
    self._assert_one_line(done, 'VENV=.*/mine: neither empty nor a virtual environment; .*', 6)
    self.assertEqual((venv / 'thesis.txt').read_text(), 'years of work')

  def test_install_that_was_killed_is_repaired(self):
    killed = launch.start(self.checkout, 'quickstart.sh', HANG='1')
    while not (self.checkout / 'hangs').exists():
      self.assertIsNone(killed.poll())
      time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    venv = self.checkout / '.venv'
    (venv / 'half').write_text('left behind')
    done = launch.run(self.checkout, 'quickstart.sh')
    self.assertEqual(done.returncode, 0, done.stderr)
    self.assertIn('was cut short', done.stdout)
    self.assertFalse((venv / 'half').exists())
    subprocess.run([venv / 'bin/python', '-c', 'import fake; assert fake.number == 7'], check=True)


if __name__ == '__main__':
  absltest.main()
