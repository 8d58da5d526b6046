"""What is compiled, how often, and where it is kept."""

import collections
import os
import pathlib
import tempfile
from unittest import mock

import jax
import numpy as np
from absl.testing import absltest, parameterized

from bitnet_jax import onednn
from bitnet_jax.checkpoints import pretrained
from bitnet_jax.data.datasets import prepared
from bitnet_jax.distributed import devices
from bitnet_jax.training import compilation, train
from tests.helpers import fake_run
from tests.helpers.processes import environment, run_program

NUM_EXAMPLES = 640  # Ten steps an epoch.
COMPILED = '/jax/core/compile/backend_compile_duration'


class LoopTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.data_dir = cls.enterClassContext(tempfile.TemporaryDirectory())
    prepared.prepare('digits', cls.data_dir)

  def setUp(self):
    super().setUp()
    self.folder = self.create_tempdir().full_path
    splits = {'data.train_split': f'train[:{NUM_EXAMPLES}]', 'data.test_split': 'test[:40]'}
    self.config = fake_run.make_config(self.data_dir, num_epochs=3.0, **splits)
    self.config.log.every_steps = 5
    self.config.checkpoint.every_steps = 7

  def train(self, name):
    workdir = pathlib.Path(self.folder) / name
    workdir.mkdir()
    return train.train(self.config, str(workdir))

  def state(self, name):
    """Parameters and running averages at the end of a run."""
    return pretrained.load(str(pathlib.Path(self.folder) / name)).variables

  @parameterized.parameters(1, 4)
  def test_nothing_is_compiled_after_the_first_epoch(self, steps_per_execution):
    self.config.steps_per_execution = steps_per_execution
    counts = collections.Counter()

    def listen(event, duration, **details):
      del duration
      if event == COMPILED:
        counts[details.get('fun_name', '')] += 1

    jax.monitoring.register_event_duration_secs_listener(listen)
    self.addCleanup(jax.monitoring.clear_event_listeners)
    self.config.eval.every_epochs = 1
    onednn.unavailable()  # Tries itself out once.
    compiled = []
    for epochs in (1.0, 3.0):
      self.config.num_epochs = epochs
      jax.clear_caches()
      counts.clear()
      self.train(f'epochs{epochs}')
      compiled.append(dict(counts))
    self.assertGreater(sum(compiled[0].values()), 2)
    self.assertEqual(compiled[0], compiled[1])

  @parameterized.parameters(1, 4)
  def test_nothing_is_transferred_within_an_epoch(self, steps_per_execution):
    self.config.steps_per_execution = steps_per_execution
    guarded = []
    real = train.train_steps

    def train_steps(run, take_steps, state, start, progress):
      inputs = run.job.train.inputs

      def guarded_inputs(number):
        if number % run.job.plan.steps_per_epoch == 0:
          return inputs(number)  # An epoch's order is handed over.
        with jax.transfer_guard('disallow_explicit'):
          return inputs(number)

      def take(state, inputs, count):
        guarded.append(count)
        with jax.transfer_guard('disallow_explicit'):
          return take_steps(state, inputs, count)

      run.job.train.inputs = guarded_inputs
      return real(run, take, state, start, progress)

    with mock.patch.object(train, 'train_steps', train_steps):
      self.train('guarded')
    self.assertEqual(sum(guarded), 3 * (NUM_EXAMPLES // 64))
    self.assertEqual(max(guarded), steps_per_execution)

  def test_bits_do_not_depend_on_how_steps_are_grouped(self):
    """As in a run that was stopped and went on, or writes its metrics at other steps."""
    self.config.steps_per_execution = 4
    results = []
    for name, every_steps in (('often', 3), ('seldom', 1000)):
      self.config.log.every_steps = self.config.checkpoint.every_steps = every_steps
      self.train(name)
      results.append(self.state(name))
    self.config.steps_per_execution = 1
    self.train('single')
    for often, seldom, single in zip(
      *map(jax.tree.leaves, (*results, self.state('single'))), strict=True
    ):
      np.testing.assert_array_equal(often, seldom)
      np.testing.assert_allclose(often, single, atol=2e-2)

  def test_the_guard_sees_a_transfer(self):
    with jax.transfer_guard('disallow_explicit'), self.assertRaisesRegex(Exception, 'transfer'):
      jax.device_put(1.0)


class CompileAheadTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.compiled = []

    def listen(event, duration, **details):
      if event == COMPILED:
        self.compiled.append(details.get('fun_name', ''))

    jax.monitoring.register_event_duration_secs_listener(listen)
    self.addCleanup(jax.monitoring.clear_event_listeners)

  def test_the_call_finds_the_program(self):
    for given in ({'x': np.ones(3, np.float32)}, {'x': np.ones((), np.int32)}):
      mapped = devices.map_devices(lambda tree: tree['x'] * 3, donate=(0,))
      placed = devices.replicate(given)
      self.compiled.clear()
      compilation.compile_ahead(mapped, devices.shapes(given))()
      self.assertLen(self.compiled, 1)
      np.testing.assert_array_equal(devices.read_back(mapped(placed)), given['x'] * 3)
      self.assertLen(self.compiled, 1)

  def test_failed_compilation_is_told_by_the_call(self):
    lowered = mock.Mock()
    lowered.compile.side_effect = RuntimeError('RESOURCE_EXHAUSTED')
    compilation.compile_ahead(mock.Mock(lower=lambda: lowered))()
    lowered.compile.assert_called_once()


class KeepProgramsTest(absltest.TestCase):
  def run_child(self, *arguments, **variables):
    inherited = {k: v for k, v in environment().items() if not k.startswith('JAX_COMPILATION')}
    env = {**inherited, **variables}
    return run_program('keeps_programs', *arguments, env=env, check=True).stdout.split()

  def test_a_second_process_finds_them(self):
    folder = self.create_tempdir().full_path
    counts = [int(self.run_child('compile', XDG_CACHE_HOME=folder)[-1]) for _ in range(2)]
    self.assertEqual(counts[0], 0)
    self.assertGreater(counts[1], 0)
    self.assertTrue(os.listdir(f'{folder}/bitnet_jax/compiled'))

  def test_the_user_decides(self):
    got = self.run_child(JAX_COMPILATION_CACHE_DIR='/elsewhere')
    self.assertEqual(got, ['-', '/elsewhere'])

  def test_a_home_that_cannot_be_written(self):
    self.assertEqual(self.run_child(XDG_CACHE_HOME='/proc/none')[0], '-')


if __name__ == '__main__':
  absltest.main()
