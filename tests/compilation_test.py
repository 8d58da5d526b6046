"""What is compiled, how often, and where it is kept."""

import collections
import dataclasses
import os
import pathlib
import subprocess
import sys
from unittest import mock

import jax
from absl.testing import absltest

from bitnet_jax import onednn, train
from bitnet_jax.data import prepared
from tests import fake_run

COMPILED = '/jax/core/compile/backend_compile_duration'


class LoopTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = self.create_tempdir().full_path
    prepared.prepare('digits', self.folder)
    self.config = fake_run.make_config(self.folder, num_epochs=3.0)
    self.config.log.every_steps = 5
    self.config.checkpoint.every_steps = 7

  def train(self, name):
    workdir = pathlib.Path(self.folder) / name
    workdir.mkdir()
    return train.train(self.config, str(workdir))

  def test_nothing_is_compiled_after_the_first_epoch(self):
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

  def test_nothing_is_transferred_between_the_steps_of_an_epoch(self):
    guarded = []
    real = train.train_steps

    def train_steps(run, train_step, feed, state, start, progress):
      def inputs_of(number):
        if number % run.plan.steps_per_epoch == 0:
          return feed.inputs_of(number)  # An epoch's order is handed over.
        with jax.transfer_guard('disallow_explicit'):
          return feed.inputs_of(number)

      def step(state, inputs):
        guarded.append(1)
        with jax.transfer_guard('disallow_explicit'):
          return train_step(state, inputs)

      guarded_feed = dataclasses.replace(feed, inputs_of=inputs_of)
      return real(run, step, guarded_feed, state, start, progress)

    with mock.patch.object(train, 'train_steps', train_steps):
      self.train('guarded')
    self.assertLen(guarded, 3 * (1437 // 64))

  def test_the_guard_sees_a_transfer(self):
    with jax.transfer_guard('disallow_explicit'), self.assertRaisesRegex(Exception, 'transfer'):
      jax.device_put(1.0)


class KeepProgramsTest(absltest.TestCase):
  def run_child(self, code, **environment):
    inherited = {k: v for k, v in os.environ.items() if not k.startswith('JAX_COMPILATION')}
    out = subprocess.run(
      [sys.executable, '-c', f'import jax\nfrom bitnet_jax import compilation\n{code}'],
      env={**inherited, **environment},
      capture_output=True,
      text=True,
      check=True,
    )
    return out.stdout.split()

  def test_a_second_process_finds_them(self):
    folder = self.create_tempdir().full_path
    code = (
      'hits = []\n'
      'jax.monitoring.register_event_listener(lambda name, **_: hits.append(name))\n'
      'compilation.keep_programs()\n'
      'jax.jit(lambda x: x * 3 + 1)(2.0)\n'
      'print(hits.count("/jax/compilation_cache/cache_hits"))'
    )
    counts = [int(self.run_child(code, XDG_CACHE_HOME=folder)[0]) for _ in range(2)]
    self.assertEqual(counts[0], 0)
    self.assertGreater(counts[1], 0)
    self.assertTrue(os.listdir(f'{folder}/bitnet_jax/compiled'))

  def test_the_user_decides(self):
    code = 'print(compilation.keep_programs() or "-", jax.config.jax_compilation_cache_dir)'
    got = self.run_child(code, JAX_COMPILATION_CACHE_DIR='/elsewhere')
    self.assertEqual(got, ['-', '/elsewhere'])

  def test_a_home_that_cannot_be_written(self):
    got = self.run_child('print(compilation.keep_programs() or "-")', XDG_CACHE_HOME='/proc/none')
    self.assertEqual(got, ['-'])


if __name__ == '__main__':
  absltest.main()
