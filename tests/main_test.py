"""The training command's front door: what is refused before any device or data is touched."""

import os
import subprocess
import sys
import tempfile

from absl.testing import absltest, parameterized

from tests.helpers.paths import ROOT
from tests.helpers.processes import environment, run_program

DIGITS = f'--config={ROOT}/configs/digits_bitnet.py'


# Packages that take long to load.
SLOW = 'jax,flax,orbax,grain,tensorflow'


def run(*arguments):
  return subprocess.run(
    [sys.executable, '-m', 'bitnet_jax.main', *arguments],
    capture_output=True,
    text=True,
    timeout=60,
    env=environment(),
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
    (
      (DIGITS, '--allow_config_change=config.sede', '--workdir=w'),
      2,
      'allow_config_change=sede: unknown field; did you mean config.seed?',
    ),
    (
      (DIGITS, '--allow_config_change=model.width', '--workdir=w'),
      2,
      'allow_config_change=model.width: a network cannot change; take a new --workdir',
    ),
    ((DIGITS, '--workdir=/tmp/a[1]'), 6, 'workdir=/tmp/a[1]: checkpoints in /tmp/a[1] could not'),
    ((DIGITS, '--workdir=/dev/null/w'), 6, 'workdir=/dev/null/w: Not a directory'),
    ((DIGITS, f'--workdir={ROOT}/setup.cfg'), 6, f'workdir={ROOT}/setup.cfg: File exists'),
  )
  def test_refuses_in_one_line(self, arguments, code, line):
    result = run(*arguments)
    self.assertEqual(result.returncode, code, result.stderr)
    self.assertIn(f'bitnet_jax: error: {line}', result.stderr)
    self.assertLen(result.stderr.strip().splitlines(), 1)
    self.assertEqual(result.stdout, '')

  @parameterized.parameters(
    ('cifar10_bitnet', "'cifar10' is not prepared; run .*prepare --dataset=cifar10 --data_dir="),
    ('cifar100_bitnet', "'cifar100' is not prepared; run .*prepare --dataset=cifar100 --data_dir="),
    ('imagenet_bitnet26', "'imagenet2012' is not prepared; run .*--dataset=imagenet2012 --data_d"),
    ('folder_finetune', 'no such directory; name a folder'),
  )
  def test_missing_data_is_told_before_slow_imports(self, name, line):
    with tempfile.TemporaryDirectory() as folder:
      arguments = (f'--config={ROOT}/configs/{name}.py', f'--config.data.dir={folder}/data')
      arguments = 'bitnet_jax.main', *arguments, f'--workdir={folder}/run'
      result = run_program('watched_command', SLOW, *arguments)
      self.assertFalse(os.path.exists(f'{folder}/data'))
    self.assertEqual(result.returncode, 3, result.stderr)
    self.assertLen(result.stderr.splitlines(), 1)
    self.assertRegex(result.stderr, f'^bitnet_jax: error: config.data.dir=.*: {line}')
    self.assertEqual(result.stdout, '[]\n')

  def test_help(self):
    result = run('--help')
    self.assertEqual(result.returncode, 0)
    self.assertIn('--workdir', result.stdout)
    self.assertIn('go on from the last checkpoint', result.stdout)


if __name__ == '__main__':
  absltest.main()
