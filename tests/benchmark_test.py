"""Benchmarks measure what they say, of the network they say."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
from unittest import mock

import jax
import numpy as np
from absl.testing import absltest, parameterized

from bitnet_jax import errors, models
from bitnet_jax.analysis.audit import counts, networks
from bitnet_jax.benchmarks import (
  against_torch,
  infer,
  memory,
  network,
  scaling,
  startup,
  step,
  table,
  timing,
  training_run,
)
from bitnet_jax.benchmarks import input as input_benchmark
from bitnet_jax.config import defaults
from bitnet_jax.config.networks import NETWORKS
from bitnet_jax.distributed import devices
from tests.helpers.paths import ROOT, program

InTurns = training_run.InTurns
NO_TORCH = importlib.util.find_spec('torch') is None
SIZES = {'bitnet': (2, 3, 2), 'wide_resnet': (1, 2, 2), 'plainnet': (1, 2, 1)}


def make_config(name='bitnet', sizes=(1, 2, 1), batch=8):
  made = defaults.default_config()
  made.model.name = name
  if name in SIZES:
    made.model.width, made.model.tree_depth, made.model.num_blocks = sizes
  made.global_batch_size, made.model.batch_norm_group = batch, 0
  return made


def run_command(*arguments, start=('-m', 'bitnet_jax.benchmark')):
  flags = os.environ['XLA_FLAGS'].replace('device_count=8', 'device_count=1')
  return subprocess.run(
    [sys.executable, *start, *arguments],
    env={**os.environ, 'XLA_FLAGS': flags, 'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    timeout=240,
    check=False,
    cwd=ROOT,
  )


class TimingTest(absltest.TestCase):
  def test_sides_take_turns(self):
    order = []

    def side(name, seconds):
      return lambda: order.append(name) or seconds

    got = timing.in_turns({'a': side('a', 1.0), 'b': side('b', 2.0)}, rounds=3, warm_up=1)
    self.assertEqual(order, ['a', 'b'] * 4)
    self.assertEqual(got, {'a': [1.0] * 3, 'b': [2.0] * 3})

  def test_figures(self):
    got = timing.summary([2.0, 1.0, 4.0], work=10)
    self.assertEqual((got['median'], got['least'], got['per_second']), (2.0, 1.0, 5.0))
    pairs = timing.ratio([1.0, 2.0, 1.0], [2.0, 3.0, 1.0])
    self.assertEqual(pairs['median'], 1.5)


class TorchNetworkTest(parameterized.TestCase):
  @parameterized.parameters(*NETWORKS)
  def test_specification_has_the_networks_parameters(self, name):
    """By name and shape, so that nothing is left at PyTorch's own initialization."""
    if NO_TORCH:
      self.skipTest('PyTorch is not installed')
    folder = pathlib.Path(against_torch.__file__).parent
    with mock.patch.object(sys, 'path', [str(folder), *sys.path]):
      import torch_networks
    made = make_config(name, SIZES.get(name))
    model = models.create_model(name, num_classes=7, **sizes_of(made))
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), np.float32)
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    arrays = against_torch.torch_arrays(jax.tree.map(lambda s: np.zeros(s.shape), shapes))
    theirs = torch_networks.TorchNetwork(against_torch.network_spec(model)).state_dict()
    want = {k: tuple(v.shape) for k, v in theirs.items() if not k.endswith('batches_tracked')}
    self.assertEqual({k: v.shape for k, v in arrays.items()}, want)


def sizes_of(made):
  if made.model.name not in SIZES:
    return {}
  return {name: made.model[name] for name in ('width', 'tree_depth', 'num_blocks')}


class CommandTest(parameterized.TestCase):
  def test_step_against_torch(self):
    if NO_TORCH:
      self.skipTest('PyTorch is not installed')
    path = pathlib.Path(self.create_tempdir().full_path) / 'lines.jsonl'
    for what in ('step', 'infer'):
      done = run_command(
        *(f'--what={what}', '--config=configs/cifar10_bitnet.py:1,2,1', '--against=torch'),
        *('--config.global_batch_size=8', '--config.model.batch_norm_group=0', '--rounds=3'),
        *(f'--json={path}', '--config.model.dtype=bfloat16'),
      )
      self.assertEqual(done.returncode, 0, done.stderr)
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    trained, applied = (line['result'] for line in lines)
    self.assertLess(trained['agreement']['logits'], 1e-4)
    self.assertLess(trained['agreement']['gradients'], 1e-2)
    self.assertAlmostEqual(
      trained['ratio']['median'] * trained['ours']['median'] / trained['torch']['median'],
      1,
      delta=2,
    )
    self.assertGreater(applied['torch']['per_second'], 0)
    printed = run_command(f'--table={path}')
    self.assertEqual(printed.stdout.strip(), table.markdown(lines))

  def test_a_python_without_torch(self):
    done = run_command(
      *('--config=configs/cifar10_bitnet.py:1,1,1', '--against=torch'),
      *('--torch_python=/none', '--config.model.batch_norm_group=0'),
    )
    self.assertEqual(done.returncode, 2)
    self.assertRegex(
      done.stderr, r'^bitnet_jax: error: torch_python=/none: .*; give --torch_python'
    )

  def test_another_python_that_lacks_torch(self):
    folder = self.create_tempdir().full_path
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', f'{folder}/bare'], check=True)
    with (
      against_torch.TorchProcess(f'{folder}/bare/bin/python', folder) as process,
      self.assertRaisesRegex(errors.ConfigError, r'\(ModuleNotFoundError: No module named'),
    ):
      process.ask('build')

  @parameterized.parameters('step', 'compile', 'scaling')
  def test_a_group_that_does_not_fit(self, what):
    done = run_command(
      *(f'--what={what}', '--config=configs/cifar10_bitnet.py:1,1,1'),
      *('--config.global_batch_size=8', '--config.model.batch_norm_group=3'),
    )
    self.assertEqual(done.returncode, 2)
    self.assertRegex(
      done.stderr, r'^bitnet_jax: error: config.model.batch_norm_group=3: [^\n]*; use [^\n]*\n$'
    )

  def test_a_start_that_fails_says_why(self):
    made = make_config()
    made.model.batch_norm_group = 3
    with self.assertRaisesRegex(RuntimeError, 'ended with 1: ValueError: batch norm group of 3'):
      startup.measure(made, rounds=1)

  def test_no_configuration(self):
    done = run_command('--what=loop')
    self.assertEqual(done.returncode, 2)
    self.assertIn('config=: required', done.stderr)


class InputTest(absltest.TestCase):
  def test_command_writes_a_line_and_its_table(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    (folder / '0.jpg').write_bytes(input_benchmark._noise(0))
    done = run_command('--what=input', f'--images={folder}')
    self.assertEqual(done.returncode, 2)
    self.assertIn(f'images={folder}: has 1 JPEG files; name 50 or more', done.stderr)
    for number in range(1, 50):
      (folder / f'{number}.jpg').write_bytes(input_benchmark._noise(number % 4))
    path = folder / 'lines.jsonl'
    arguments = '--what=input', f'--images={folder}', f'--json={path}'
    done = run_command(*arguments, start=(program('short_input_benchmark'),))
    self.assertEqual(done.returncode, 0, done.stderr)
    line = json.loads(path.read_text())
    self.assertEqual(line['result']['images'], '50 photographs')
    for rate in (*line['result']['decoding'].values(), line['result']['resident']):
      self.assertGreater(rate, 0)
    self.assertIn('| ours: decode, crop |', done.stdout)


class MeasureTest(parameterized.TestCase):
  def test_another_network_is_not_compared(self):
    case = network.Case(make_config())
    ours = case.check()
    norms = {
      name: float(np.linalg.norm(value))
      for name, value in against_torch.torch_arrays({'params': ours['gradients']}).items()
    }
    theirs = {'logits': ours['logits'].tolist(), 'loss': ours['loss'], 'gradients': norms}
    self.assertEqual(step.compare(ours, theirs)['logits'], 0)
    with self.assertRaisesRegex(errors.ConfigError, 'computes something else'):
      step.compare(ours, {**theirs, 'logits': (ours['logits'] * 1.01).tolist()})
    largest = max(norms, key=norms.get)
    with self.assertRaisesRegex(errors.ConfigError, 'computes something else'):
      step.compare(ours, {**theirs, 'gradients': {**norms, largest: norms[largest] * 1.1}})
    del norms[largest]
    with self.assertRaisesRegex(errors.ConfigError, f'parameters differ: {largest}'):
      step.compare(ours, {**theirs, 'gradients': norms})

  def test_alone(self):
    made = make_config()
    self.assertGreater(step.measure(made, rounds=3)['ours']['per_second'], 0)
    self.assertGreater(infer.measure(made, rounds=3, count=2)['ours']['per_second'], 0)

  def test_memory(self):
    result = memory.measure(make_config())
    self.assertGreater(result['temporary'], 0)
    self.assertGreater(result['resident'], result['arguments'])
    self.assertIsNone(result['peak'])  # The CPU's allocator keeps no count.
    names = dict.fromkeys(table._CONDITIONS, '')
    line = {'network': 'bitnet 1,2,1', 'dtype': 'float32', 'batch': 8, 'result': result}
    text = table.markdown([{**line, 'what': 'memory', 'conditions': names}])
    self.assertRegex(text, r'\| 8 \| \d+ \| \d+ \| - \| \d+ \|')

  def test_many_steps_in_a_call(self):
    made = make_config()
    made.steps_per_execution, taken = 2, []

    def map_devices(function, **options):
      mapped = devices.map_devices(function, **options)

      def run(state, inputs, count):
        taken.append(int(devices.read_back(count)))
        state, report = mapped(state, inputs, count)
        self.assertEqual(devices.read_back(state).step, sum(taken))
        return state, report

      run.lower = mapped.lower
      return run

    with mock.patch.object(network, 'devices', wraps=devices) as patched:
      patched.map_devices = map_devices
      run = network.Case(made).side(5)
      self.assertGreater(run(), 0)
    self.assertEqual(taken, [2, 2, 1])

  @parameterized.parameters(1, 4)
  def test_loop_pairs_its_steps_with_bare_ones(self, steps_per_execution):
    made = make_config(batch=16)
    made.steps_per_execution = steps_per_execution
    turns = []
    keep = lambda *arguments: turns.append(InTurns(*arguments)) or turns[0]  # noqa: E731
    with mock.patch.object(training_run, 'InTurns', side_effect=keep):
      result = training_run.measure(made, rounds=3, length=6)
    self.assertLen(turns[0].loop, 3)
    # Of unoptimized kernels on virtual devices: only that both were timed, of the same steps.
    self.assertBetween(result['share']['whole'], 0.05, 5)

  def test_multiply_adds_are_those_of_the_audit(self):
    case = network.Case(make_config(sizes=(4, 3, 1)))
    wanted = networks.Network('bitnet', 4, 3, 1)
    want = counts.count(wanted, 'multiply_adds', wanted.trained)
    self.assertEqual(case.multiply_adds(), 8 * want)

  def test_two_processes_take_steps_together(self):
    got = scaling._layout(make_config(), processes=2, count=1, rounds=2)
    self.assertGreater(got['per_second'], 0)


if __name__ == '__main__':
  absltest.main()
