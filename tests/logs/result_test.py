"""The result line holds the counts of the run."""

import json
import pathlib
import subprocess
import sys
import tempfile

from absl.testing import absltest, parameterized

from bitnet_jax import errors
from bitnet_jax.logs import result

_RESULT = {
  'split': 'test',
  'error': 0.0194,
  'correct': 353,
  'count': 360,
  'step': 440,
  'epoch': 20,
  'train_seconds': 41.23,
  'checkpoint': 'runs/quickstart/checkpoints/440',
}


class ResultTest(parameterized.TestCase):
  def _workdir(self, text: str) -> str:
    workdir = self.enterContext(tempfile.TemporaryDirectory())
    pathlib.Path(workdir, 'result.json').write_text(text)
    return workdir

  def _command(self, workdir: str) -> subprocess.CompletedProcess:
    command = [sys.executable, '-m', 'bitnet_jax.analysis.result', f'--workdir={workdir}']
    return subprocess.run(command, capture_output=True, text=True)

  def test_command_prints_the_checkpoint_and_the_result(self):
    done = self._command(self._workdir(json.dumps(_RESULT)))
    self.assertEqual(
      done.stdout,
      'checkpoint: runs/quickstart/checkpoints/440\n'
      'test error 1.94 % (accuracy 98.06 %, 353 of 360 images) '
      'after 20 epochs, 41.2 s of training\n',
    )
    self.assertEqual(done.returncode, 0)

  def test_unfinished_run_is_one_line(self):
    done = self._command('nowhere')
    self.assertEqual(done.returncode, 3)
    self.assertRegex(done.stderr, r'\Abitnet_jax: error: workdir=nowhere: has no [^\n]*\n\Z')

  @parameterized.parameters('', '{"split": "test"', '{}', '[]', '{"correct": 1, "count": "a"}')
  def test_damaged_file_is_named(self, text):
    with self.assertRaisesRegex(errors.DataError, r'result=.*/result\.json: cannot be read'):
      result.read(self._workdir(text))

  def test_fractions_of_epochs_are_kept(self):
    self.assertIn(' after 2.5 epochs', result.describe({**_RESULT, 'epoch': 2.5}))


if __name__ == '__main__':
  absltest.main()
