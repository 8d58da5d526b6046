"""Real training processes on the real digits: learning, resuming after kill -9, refusing."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl.testing import absltest

from bitnet_jax import checkpoint
from bitnet_jax.data import prepared

ROOT = pathlib.Path(__file__).parent.parent
TIMEOUT = 240
# A network that compiles in seconds and learns the digits in a few epochs: 22 steps each.
SMALL = {
  'model.width': 1,
  'model.tree_depth': 2,
  'global_batch_size': 64,
  'model.batch_norm_group': 32,
  'num_epochs': 3,
  'log.every_steps': 1,
  'checkpoint.every_steps': 5,
  'optim.drop_epochs': '(3,)',
  'log.tensorboard': False,
}
# Never the same in two runs.
TIMES = ('seconds', 'seconds_per_step', 'images_per_second')


def environment(devices):
  flags = [
    flag for flag in os.environ['XLA_FLAGS'].split() if 'force_host_platform_device' not in flag
  ]
  flags.append(f'--xla_force_host_platform_device_count={devices}')
  return {**os.environ, 'XLA_FLAGS': ' '.join(flags), 'PYTHONPATH': str(ROOT)}


def command(workdir, data_dir, fields):
  overrides = [f'--config.{name}={value}' for name, value in {**SMALL, **fields}.items()]
  return [
    *(sys.executable, '-m', 'bitnet_jax.main', f'--workdir={workdir}'),
    f'--config={ROOT}/configs/digits_bitnet.py',
    f'--config.data.dir={data_dir}',
    *overrides,
  ]


def rows(workdir, kind=None):
  lines = (pathlib.Path(workdir) / 'metrics.jsonl').read_text().splitlines()
  parsed = [json.loads(line) for line in lines]
  return [
    {name: value for name, value in row.items() if name not in TIMES}
    for row in parsed
    if kind in (None, row['kind'])
  ]


class TrainTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
    cls.data_dir = cls.folder / 'data'
    prepared.prepare('digits', str(cls.data_dir))
    cls.whole = cls.folder / 'whole'
    cls.run_main(cls, cls.whole)

  def run_main(self, workdir, devices=1, **fields):
    result = subprocess.run(
      command(workdir, self.data_dir, fields),
      env=environment(devices),
      cwd=self.folder,
      capture_output=True,
      text=True,
      timeout=TIMEOUT,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result

  def fails(self, workdir, code, line, devices=1, **fields):
    result = subprocess.run(
      command(workdir, self.data_dir, fields),
      env=environment(devices),
      cwd=self.folder,
      capture_output=True,
      text=True,
      timeout=TIMEOUT,
    )
    errors = [text for text in result.stderr.splitlines() if 'bitnet_jax: error: ' in text]
    self.assertEqual(result.returncode, code, result.stderr[-3000:])
    self.assertLen(errors, 1)
    self.assertRegex(errors[0], line)
    self.assertNotIn('Traceback', result.stderr)

  def state(self, workdir):
    """All arrays of the last checkpoint."""
    checkpoints = checkpoint.Checkpoints(str(workdir))
    self.addCleanup(checkpoints.close)
    path = pathlib.Path(checkpoints.path(checkpoints.latest_step())) / 'state'
    return ocp.StandardCheckpointer().restore(path)

  def test_learns_and_writes_its_records(self):
    result = json.loads((self.whole / 'result.json').read_text())
    self.assertLess(result['error'], 0.25)
    self.assertEqual((result['count'], result['step']), (360, 66))
    self.assertEqual(result['correct'], round(360 * (1 - result['error'])))
    self.assertLen(rows(self.whole, 'train'), 66)
    self.assertLen(rows(self.whole, 'epoch'), 3)
    self.assertEqual([row['count'] for row in rows(self.whole, 'eval')], [360] * 3)
    run = json.loads((self.whole / 'run.json').read_text())
    self.assertEqual(run['derived']['steps_per_epoch'], 22)
    self.assertEqual(run['derived']['class_names'], [str(digit) for digit in range(10)])
    self.assertIn('jax', run['packages'])
    self.assertRegex(run['commit'], '^([0-9a-f]{40}([+]changes)?|unknown)$')
    config = json.loads((self.whole / 'config.json').read_text())
    self.assertEqual(config['model']['tree_depth'], 2)

  def test_metrics_of_an_epoch_are_the_means_of_its_steps(self):
    for epoch in rows(self.whole, 'epoch'):
      steps = [
        row
        for row in rows(self.whole, 'train')
        if epoch['step'] - 22 < row['step'] <= epoch['step']
      ]
      for name in ('loss', 'error', 'stem_gradient_norm'):
        self.assertAlmostEqual(np.mean([row[name] for row in steps]), epoch[name], places=5)

  def test_rate_drops_at_the_start_of_the_third_epoch(self):
    rates = [row['learning_rate'] for row in rows(self.whole, 'train')]
    np.testing.assert_allclose(rates, [0.1] * 44 + [0.02] * 22, rtol=1e-6)

  def test_killed_run_goes_on_bit_for_bit(self):
    workdir = self.folder / 'killed'
    for step in (10, 35):  # Twice: in the first epoch, and after a resume.
      process = subprocess.Popen(
        command(workdir, self.data_dir, {}),
        env=environment(1),
        cwd=self.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
      )
      deadline = time.monotonic() + TIMEOUT
      while not (workdir / 'checkpoints' / str(step)).exists():
        self.assertIsNone(process.poll(), 'ended before it was killed')
        self.assertLess(time.monotonic(), deadline)
        time.sleep(0.01)
      process.send_signal(signal.SIGKILL)
      process.wait()
    done = self.run_main(workdir)
    self.assertRegex(done.stdout, r'resumed from step (3[5-9]|[4-6]\d)')
    self.assertEqual(rows(workdir), rows(self.whole))
    want, got = self.state(self.whole), self.state(workdir)
    names = ('step', 'params', 'batch_stats', 'opt_state', 'interval_sums', 'epoch_sums')
    self.assertEqual(set(got), set(names))
    for a, b in zip(jax.tree.leaves(want), jax.tree.leaves(got), strict=True):
      np.testing.assert_array_equal(a, b)

  def test_eight_devices_train_on_the_same_examples(self):
    """Losses agree up to rounding, which training amplifies: compare the first steps."""
    workdir = self.folder / 'eight'
    self.run_main(workdir, devices=8, num_epochs=0.25)
    one, eight = rows(self.whole, 'train'), rows(workdir, 'train')
    self.assertLen(eight, 6)
    for a, b in zip(one[:6], eight, strict=True):
      self.assertAlmostEqual(a['loss'], b['loss'], delta=2e-3)
    self.assertAlmostEqual(one[0]['loss'], eight[0]['loss'], delta=1e-5)
    result = json.loads((workdir / 'result.json').read_text())
    self.assertEqual(result['count'], 360)

  def test_finished_run_is_left_as_it_is_and_a_changed_one_refused(self):
    before = (self.whole / 'result.json').read_text(), rows(self.whole), self.state(self.whole)
    done = self.run_main(self.whole)
    self.assertIn('resumed from step 66', done.stdout)
    self.assertEqual((self.whole / 'result.json').read_text(), before[0])
    self.assertEqual(rows(self.whole), before[1])
    for name, value, old in (('model.width', 2, 1), ('seed', 5, 0)):
      line = f'config.{name}={value}: the checkpoint of step 66 was trained with {old}; restore'
      self.fails(self.whole, 4, line, **{name: value})

  def test_batch_that_does_not_divide(self):
    line = 'config.global_batch_size=62: not divisible by 8 devices; use 56 or 64'
    self.fails(self.folder / 'refused', 2, line, devices=8, global_batch_size=62)

  def test_batch_larger_than_the_split(self):
    line = 'config.global_batch_size=1500: the training split has 1437 examples; use 1437 or fewer'
    self.fails(
      self.folder / 'refused',
      2,
      line,
      **{'global_batch_size': 1500, 'model.batch_norm_group': 0},
    )

  def test_data_that_is_not_there(self):
    line = "config.data.dir=.*'?digits'? is not prepared.*bitnet_jax.prepare --dataset=digits"
    self.fails(self.folder / 'refused', 3, line, **{'data.dir': self.folder / 'nothing'})


if __name__ == '__main__':
  absltest.main()
