"""What a run shows: lines in a pipe, a bar on a real terminal."""

import os
import pty
import subprocess
import sys
import termios

from absl.testing import absltest

from tests.helpers.paths import program
from tests.helpers.processes import environment, run_program


class ProgressTest(absltest.TestCase):
  def test_lines_where_there_is_no_terminal(self):
    result = run_program('shows_progress', check=True)
    where = 'epoch 1.0/2  step 20/40'
    want = [
      f'{where}  loss 1.2500  error 50.00%',
      f'{where}  loss 1.2500  error 50.00%  1,234 images/s  0:20:00 left',
      f'{where}  test loss 1.0000  test error 25.00% (25/100 wrong)',
    ]
    self.assertEqual(result.stdout.splitlines(), want)
    self.assertEqual(result.stderr, '')

  def test_bar_on_a_terminal(self):
    master, slave = pty.openpty()
    termios.tcsetwinsize(slave, (24, 120))
    process = subprocess.Popen(
      [sys.executable, program('shows_progress')], env=environment(), stdout=slave, stderr=slave
    )
    os.close(slave)
    shown = b''
    while True:
      try:
        part = os.read(master, 4096)
      except OSError:  # The other end is closed.
        break
      if not part:
        break
      shown += part
    self.assertEqual(process.wait(), 0)
    os.close(master)
    text = shown.decode()
    self.assertIn('20/40', text)
    self.assertIn('epoch 1.0', text)
    self.assertIn('loss 1.2500  error 50.00%  1,234 images/s', text)
    self.assertIn('test error 25.00% (25/100 wrong)', text)


if __name__ == '__main__':
  absltest.main()
