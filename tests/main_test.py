"""The training command's front door: what is refused before any device or data is touched."""

import os
import pathlib
import subprocess
import sys

from absl.testing import absltest, parameterized

ROOT = pathlib.Path(__file__).parent.parent
DIGITS = f'--config={ROOT}/configs/digits_bitnet.py'


def run(*arguments):
  return subprocess.run(
    [sys.executable, '-m', 'bitnet_jax.main', *arguments],
    capture_output=True,
    text=True,
    timeout=60,
    env={**os.environ, 'PYTHONPATH': str(ROOT)},
  )


class MainTest(parameterized.TestCase):
  @parameterized.parameters(
    ((), 2, 'config=: required; give --config=configs/NAME.py'),
    ((DIGITS,), 2, 'workdir=: required; give --workdir=DIRECTORY'),
    (('--config=nothing.py', '--workdir=w'), 2, 'config=nothing.py: no such file'),
    (('--config=https://x.org/c.py', '--workdir=w'), 2, 'config=https://x.org/c.py'),
    (
      (DIGITS, '--config.learning_rate=1', '--workdir=w'),
      2,
      'config.learning_rate=1: unknown key; did you mean config.optim.learning_rate?',
    ),
    (
      (DIGITS, '--config.global_batch_size=abc', '--workdir=w'),
      2,
      'config.global_batch_size=abc: not an integer; give an integer',
    ),
    (
      (DIGITS, '--config.optim.learning_rate=nan', '--workdir=w'),
      2,
      'config.optim.learning_rate=nan: not a finite number',
    ),
    (
      (DIGITS, '--config.model.width=3', '--config.model.tree_depth=5', '--workdir=w'),
      2,
      'config.model.width=3: 16*width=48 not divisible by 2**tree_depth=32; use width 2 or 4',
    ),
    ((f'--config={ROOT}/configs/cifar10_bitnet.py:4,6', '--workdir=w'), 2, 'config=4,6: not a row'),
    ((DIGITS, '--workdir=/dev/null/w'), 6, 'workdir=/dev/null/w: Not a directory'),
    ((DIGITS, f'--workdir={ROOT}/setup.cfg'), 6, f'workdir={ROOT}/setup.cfg: File exists'),
  )
  def test_refuses_in_one_line(self, arguments, code, line):
    result = run(*arguments)
    self.assertEqual(result.returncode, code, result.stderr)
    self.assertIn(f'bitnet_jax: error: {line}', result.stderr)
    self.assertLen(result.stderr.strip().splitlines(), 1)
    self.assertEqual(result.stdout, '')

  def test_help(self):
    result = run('--help')
    self.assertEqual(result.returncode, 0)
    self.assertIn('--workdir', result.stdout)
    self.assertIn('go on from the last checkpoint', result.stdout)


if __name__ == '__main__':
  absltest.main()
