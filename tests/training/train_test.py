"""Real training processes on the real digits: learning, its records, refusing."""

import json
import shutil
import subprocess

import numpy as np
from absl.testing import absltest

from bitnet_jax.data.batches import order
from tests.helpers import train_process
from tests.helpers.recorded_run import examples
from tests.helpers.train_process import TIMEOUT, command, environment, rows


class TrainTest(train_process.TrainCase):
  def run_program(self, workdir, *flags, program='', devices=1, variables=None, **fields):
    """A run of the training command or of a program; `flags` are given to it as they are."""
    return subprocess.run(
      [*command(workdir, self.data_dir, fields, program), *flags],
      env={**environment(devices), **(variables or {})},
      cwd=self.folder,
      capture_output=True,
      text=True,
      timeout=TIMEOUT,
    )

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

  def test_environment_variables_are_written_nowhere(self):
    self.assertIn('SECRET_TOKEN', environment(1))
    files = [path for path in self.whole.rglob('*') if path.is_file()]
    self.assertGreater(len(files), 10)
    for text in (self.output.stdout, self.output.stderr, *files):
      content = text.encode() if isinstance(text, str) else text.read_bytes()
      for secret in ('SECRET_TOKEN', train_process.CANARY, str(train_process.ROOT)):
        self.assertNotIn(secret.encode(), content, text)

  def test_epoch_metrics_are_the_means_of_its_steps(self):
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

  def test_finished_run_stays_and_a_change_is_refused(self):
    before = (self.whole / 'result.json').read_text(), rows(self.whole)
    done = self.run_main(self.whole)
    self.assertIn('resumed from step 66', done.stdout)
    self.assertEqual((self.whole / 'result.json').read_text(), before[0])
    self.assertEqual(rows(self.whole), before[1])
    config = (self.whole / 'config.json').read_text()
    line = 'config.model.width=2: the checkpoint of step 66 was trained with 1; restore'
    self.fails(self.whole, 4, line, **{'model.width': 2})
    line = 'config.num_epochs=1.0: the run has taken 66 steps already, these are 22; use 3 or more'
    self.fails(self.whole, 2, line, num_epochs=1)
    self.assertEqual((self.whole / 'config.json').read_text(), config)

  def test_divergence_ends_the_run_and_saves_nothing(self):
    """Batch norm keeps the loss finite at any rate; a rate of 1e9 is caught all the same."""
    workdir = self.folder / 'diverged'
    line = 'loss=.*: diverged at step [0-9]+; last good checkpoint: .*; lower config.optim.learning'
    fields = {'optim.learning_rate': 1e6, 'num_epochs': 30, 'checkpoint.every_steps': 500}
    self.fails(workdir, 5, line, **fields)
    self.assertFalse((workdir / 'result.json').exists())
    saved = [int(path.name) for path in (workdir / 'checkpoints').iterdir()]
    last = rows(workdir, 'train')[-1]['step']
    self.assertLess(max(saved, default=0), last)

  def test_allowed_change_and_one_that_overflows(self):
    """Goes on from the finished run with another rate, then with one that makes the loss a NaN."""
    workdir = self.folder / 'changed'
    shutil.copytree(self.whole, workdir)
    rate, seed = '--allow_config_change=optim.learning_rate', '--allow_config_change=config.seed'
    fields = {'optim.learning_rate': 0.05, 'seed': 3, 'num_epochs': 4}
    changed = self.run_program(workdir, rate, seed, **fields)
    self.assertEqual(changed.returncode, 0, changed.stderr[-2000:])
    self.assertIn('resumed from step 66, ', changed.stdout)
    after = rows(workdir, 'train')
    self.assertEqual(after[:66], rows(self.whole, 'train'))
    self.assertEqual([row['step'] for row in after[66:]], list(range(67, 89)))
    np.testing.assert_allclose([row['learning_rate'] for row in after[66:]], 0.01, rtol=1e-6)
    self.assertLess(json.loads((workdir / 'result.json').read_text())['error'], 0.25)

    saved = sorted(path.name for path in (workdir / 'checkpoints').iterdir())
    fields = {'optim.learning_rate': 1e6, 'optim.weight_decay': 1.0, 'num_epochs': 9}
    decay = '--allow_config_change=optim.weight_decay'
    ended = self.run_program(workdir, rate, seed, decay, **fields)
    self.assertEqual(ended.returncode, 5, ended.stderr[-2000:])
    line = 'error: loss=nan: diverged at step [0-9]+; last good checkpoint: 88; lower config.optim.'
    self.assertRegex(ended.stderr, line)
    self.assertEqual(sorted(path.name for path in (workdir / 'checkpoints').iterdir()), saved)
    self.assertEqual(int(self.state(workdir)['step']), 88)

  def test_other_device_counts_see_the_same_examples(self):
    """The finished run, of one device, is made longer on two, four and one again."""
    workdir, recorded, last = self.folder / 'devices', self.folder / 'devices.examples', 66
    shutil.copytree(self.whole, workdir)
    for before, devices in ((1, 2), (2, 4), (4, 1)):
      run = self.run_program(
        workdir,
        program='records_examples',
        devices=devices,
        variables={'EXAMPLES': str(recorded)},
        num_epochs=(last + 3) / 22,
      )
      self.assertEqual(run.returncode, 0, run.stderr[-2000:])
      self.assertIn(f'resumed from step {last}, ', run.stdout)
      line = f'warning: num_devices was {before}, is {devices}: the same examples in the same order'
      self.assertRegex(run.stderr, f'{line}, but the bits may differ')
      last += 3
    seen = examples(recorded)
    self.assertEqual(list(seen), list(range(66, last)))
    for step in seen:
      epoch, batch = divmod(step, 22)
      want = order.epoch_order(0, epoch, 1437)[64 * batch : 64 * (batch + 1)]
      self.assertEqual(seen[step], want.tolist(), step)
    self.assertEqual([row['step'] for row in rows(workdir, 'train')], list(range(1, last + 1)))

  def test_save_under_way_is_finished_at_any_end(self):
    workdir = self.folder / 'ended'
    ended = self.run_program(workdir, program='ends_after_save')
    self.assertEqual(ended.returncode, 3, ended.stderr[-2000:])
    self.assertIn('bitnet_jax: error: image=x: broken; mend it', ended.stderr)
    self.assertTrue((workdir / 'manifests' / '10.json').exists())
    self.assertEqual(int(self.state(workdir)['step']), 10)

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
