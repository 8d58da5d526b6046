"""SIGTERM and SIGINT to real training runs: saved, exit code 75, and on to the same bits."""

import json
import signal
import subprocess
import time
from typing import ClassVar

from absl.testing import absltest, parameterized

from tests.helpers import train_process
from tests.helpers.processes import run_program
from tests.helpers.train_process import saved_step


class StopCase(train_process.TrainCase):
  def stop_at(self, workdir, marker, number=signal.SIGTERM, **fields):
    """Starts a run and signals it when `marker` appears in what it prints or as a file."""
    process = subprocess.Popen(
      train_process.command(workdir, self.data_dir, fields),
      env=train_process.environment(1),
      cwd=self.folder,
      stdout=subprocess.PIPE,
      stderr=subprocess.PIPE,
      text=True,
    )
    self.addCleanup(process.kill)
    for line in process.stdout:
      if marker in line:
        break
    process.send_signal(number)
    started = time.monotonic()
    _, stderr = process.communicate(timeout=train_process.TIMEOUT)
    return process.returncode, stderr, time.monotonic() - started

  def goes_on(self, workdir, stderr, **fields):
    """Runs again, from the step that was saved on to the bits of `whole`; gives that step."""
    self.assertLen([line for line in stderr.splitlines() if 'error' in line], 1)
    self.assertNotIn('Traceback', stderr)
    step = saved_step(stderr, workdir)
    self.assertIn(f'resumed from step {step}, ', self.run_main(workdir, **fields).stdout)
    self.assertEqual(train_process.rows(workdir), train_process.rows(self.whole))
    self.assertSameState(workdir, self.whole)
    return step


class StopTest(StopCase, parameterized.TestCase):
  @parameterized.parameters(('step 30/66', signal.SIGTERM), ('test loss', signal.SIGINT))
  def test_saves_and_goes_on_bit_for_bit(self, marker, number):
    workdir = self.folder / f'stopped-{marker}-{number}'.replace('/', '-').replace(' ', '-')
    code, stderr, _ = self.stop_at(workdir, marker, number)
    self.assertEqual(code, 75, stderr[-2000:])
    self.assertGreaterEqual(self.goes_on(workdir, stderr), 22 if marker == 'test loss' else 30)

  def test_signal_in_compilation_stops_at_step_0(self):
    workdir = self.folder / 'compiles'
    # A cache of its own, in which the step is not yet.
    cache = {'JAX_COMPILATION_CACHE_DIR': str(self.folder / 'empty-cache')}
    stopped = subprocess.run(
      train_process.command(workdir, self.data_dir, {}, 'signaled_in_compile'),
      env={**train_process.environment(1), **cache},
      cwd=self.folder,
      capture_output=True,
      text=True,
      timeout=train_process.TIMEOUT,
    )
    self.assertEqual(stopped.returncode, 75, stopped.stderr[-2000:])
    self.assertIn('COMPILED after SIGTERM', stopped.stderr)
    self.assertIn('step=0: asked to stop; run the command again', stopped.stderr)
    self.assertEqual(list((workdir / 'checkpoints').glob('*')), [])
    self.run_main(workdir)
    self.assertSameState(workdir, self.whole)

  def test_stopped_evaluation_is_made_up_for(self):
    """Many small evaluation batches, so that the signal surely falls into them."""
    workdir, fields = self.folder / 'evaluation', {'eval.batch_size': 1}
    code, stderr, _ = self.stop_at(workdir, 'step 22/66', **fields)
    self.assertEqual(code, 75, stderr[-2000:])
    step = saved_step(stderr, workdir)
    self.assertIn(f'resumed from step {step}, ', self.run_main(workdir, **fields).stdout)
    steps = [row['step'] for row in train_process.rows(workdir, 'eval')]
    self.assertEqual(steps, [22, 44, 66])
    got = json.loads((workdir / 'result.json').read_text())
    want = json.loads((self.whole / 'result.json').read_text())
    self.assertEqual((got['correct'], got['count']), (want['correct'], want['count']))

  def test_third_signal_aborts(self):
    result = run_program('aborted_by_signals')
    self.assertEqual(result.returncode, 128 + signal.SIGTERM)
    self.assertEqual(result.stdout, '')
    self.assertIn('SIGTERM: saving and stopping', result.stderr)
    self.assertIn('still saving; once more aborts', result.stderr)


class ManyStepsTest(StopCase):
  """As on a GPU, where a call of the device takes many steps."""

  FIELDS: ClassVar[dict] = {
    'steps_per_execution': 4,
    'log.every_steps': 6,
    'checkpoint.every_steps': 9,
    'num_epochs': 2,
  }

  def test_saves_between_calls_and_goes_on_bit_for_bit(self):
    workdir = self.folder / 'stopped'
    code, stderr, _ = self.stop_at(workdir, 'step 12/44', **self.FIELDS)
    self.assertEqual(code, 75, stderr[-2000:])
    self.assertGreaterEqual(self.goes_on(workdir, stderr, **self.FIELDS), 12)
    steps = [row['step'] for row in train_process.rows(self.whole, 'train')]
    self.assertEqual(steps, [6, 12, 18, 24, 30, 36, 42, 44])


if __name__ == '__main__':
  absltest.main()
