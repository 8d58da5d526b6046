"""Real training processes on the real digits, for the tests of whole runs."""

import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
from typing import ClassVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl.testing import absltest

from bitnet_jax.checkpoints import manager
from bitnet_jax.data.datasets import prepared
from tests.helpers import paths
from tests.helpers.paths import ROOT

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
  'optim.schedule': 'step',
  'optim.drop_epochs': '(3,)',
  'optim.weight_decay': 0.0005,
  'data.image_size': 0,
  'augment.pad': 1,
  'eval.every_epochs': 1,
  'log.tensorboard': False,
}
# A variable of every run's environment, to be found nowhere.
CANARY = 'canary-5d41402abc4b2a76'
# Never the same in two runs.
TIMES = ('seconds', 'seconds_per_step', 'images_per_second')


def environment(devices):
  flags = [
    flag for flag in os.environ['XLA_FLAGS'].split() if 'force_host_platform_device' not in flag
  ]
  flags.append(f'--xla_force_host_platform_device_count={devices}')
  variables = {'XLA_FLAGS': ' '.join(flags), 'PYTHONPATH': str(ROOT), 'SECRET_TOKEN': CANARY}
  return {**os.environ, **variables}


def command(workdir, data_dir, fields, program=''):
  """The training command, or a program of tests/helpers/programs in its place."""
  start = [paths.program(program)] if program else ['-m', 'bitnet_jax.main']
  overrides = [f'--config.{name}={value}' for name, value in {**SMALL, **fields}.items()]
  return [
    *(sys.executable, *start, f'--workdir={workdir}'),
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


def saved_step(text, workdir):
  """The step that a run, asked to stop, says it saved in `workdir`."""
  line = rf'step=(\d+): asked to stop; saved in {workdir}/checkpoints/\1; run the command again'
  found = re.findall(line, text)
  assert len(found) == 1, text[-2000:]
  return int(found[0])


class DataCase(absltest.TestCase):
  """Prepares the digits."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
    cls.data_dir = cls.folder / 'data'
    prepared.prepare('digits', str(cls.data_dir))

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

  def state(self, workdir, step=0):
    """All arrays of a checkpoint, the last one's if `step` is 0."""
    checkpoints = manager.Checkpoints(str(workdir))
    self.addCleanup(checkpoints.close)
    path = pathlib.Path(checkpoints.path(step or checkpoints.latest_step())) / 'state'
    return ocp.StandardCheckpointer().restore(path)

  def assertSameState(self, workdir, other):
    got, want = self.state(workdir), self.state(other)
    self.assertEqual(set(got), set(want))
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
      np.testing.assert_array_equal(a, b)


class TrainCase(DataCase):
  """Trains once without interruption, in `self.whole`."""

  FIELDS: ClassVar[dict] = {}  # Of the configuration of that run, beside SMALL.

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.whole = cls.folder / 'whole'
    cls.output = cls.run_main(cls, cls.whole, **cls.FIELDS)
