"""What a run shows: lines in a pipe, a bar on a real terminal."""

import os
import pty
import subprocess
import sys
import termios

from absl.testing import absltest

PROGRAM = """
from bitnet_jax.logs.progress_bar import ProgressBar
progress = ProgressBar(step=10, total_steps=40, steps_per_epoch=20)
progress.advance(20)
values = {'loss': 1.25, 'error': 0.5}
progress.interval(20, values)
progress.interval(20, {**values, 'images_per_second': 1234.0, 'seconds_per_step': 60.0})
progress.evaluated(20, {'loss': 1.0, 'error': 0.25, 'correct': 75, 'count': 100})
progress.close()
"""


class ProgressTest(absltest.TestCase):
  def test_lines_where_there_is_no_terminal(self):
    result = subprocess.run(
      [sys.executable, '-c', PROGRAM], capture_output=True, text=True, check=True
    )
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
    process = subprocess.Popen([sys.executable, '-c', PROGRAM], stdout=slave, stderr=slave)
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
