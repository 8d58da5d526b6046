"""What a run writes about itself."""

import json
import os
import pathlib
from unittest import mock

import jax
import numpy as np
from absl.testing import absltest

from bitnet_jax.config import defaults
from bitnet_jax.logs import run_info
from bitnet_jax.runtime import files


class RecordsTest(absltest.TestCase):
  def test_parameter_table_counts(self):
    params = {
      'stem_conv': {'kernel': np.zeros((3, 3, 1, 16))},
      'head': {'kernel': np.zeros((16, 10)), 'bias': np.zeros(10)},
    }
    lines = run_info.parameter_table(params).splitlines()
    self.assertEqual(lines[0].split(), ['stem_conv', '144', '3x3x1x16'])
    self.assertEqual(lines[1].split(), ['head', '170', '16x10'])
    self.assertEqual(lines[2].split(), ['parameters', '314'])

  def test_config_goes_round(self):
    workdir = self.create_tempdir().full_path
    written = defaults.default_config()
    run = {**run_info.environment(), 'derived': {'total_steps': 7}}
    run_info.write_run(workdir, written, run)
    again = defaults.default_config()
    again.update(json.loads(pathlib.Path(workdir, 'config.json').read_text()))
    self.assertEqual(again.to_dict(), written.to_dict())
    run = json.loads(pathlib.Path(workdir, 'run.json').read_text())
    self.assertEqual(run['derived'], {'total_steps': 7})
    self.assertEqual(run['num_devices'], 8)
    self.assertEqual(run['platform'], 'cpu')
    self.assertNoCredentials(run)

  def test_settings_are_those_that_bits_depend_on(self):
    flags = (
      '--xla_dump_to=/home/someone --xla_b=2 --xla_force_host_platform_device_count=8 --xla_a=1'
    )
    with (
      mock.patch.dict(os.environ, XLA_FLAGS=flags),
      jax.default_matmul_precision('highest'),
      jax.default_prng_impl('rbg'),
    ):
      found = run_info.environment()['settings']
    self.assertEqual(found['XLA_FLAGS'], '--xla_a=1 --xla_b=2')
    self.assertEqual(found['jax_default_matmul_precision'], 'highest')
    self.assertEqual(found['jax_default_prng_impl'], 'rbg')
    self.assertEqual(json.loads(json.dumps(found)), found)

  def test_json_is_replaced_whole(self):
    workdir = self.create_tempdir().full_path
    path = os.path.join(workdir, 'result.json')
    files.write_json(path, {'error': 0.5})
    with self.assertRaises(ValueError):
      loop = []
      loop.append(loop)
      files.write_json(path, loop)
    self.assertEqual(json.loads(pathlib.Path(path).read_text()), {'error': 0.5})

  def assertNoCredentials(self, record):
    self.assertFalse({'env', 'environ', 'environment'} & set(record))


if __name__ == '__main__':
  absltest.main()
