"""Checkpoints that version 0.1 wrote before the package got its rooms are read as they were.

`golden.tar.xz` holds a work directory for each kind of network. To stay small, every array of a
state is constant: `value_of` its path.
"""

import pathlib
import tarfile
import tempfile
import zlib

import jax
import numpy as np
from absl.testing import absltest, parameterized

from bitnet_jax.checkpoints import pretrained
from bitnet_jax.checkpoints.manager import Checkpoints
from bitnet_jax.distributed import devices
from bitnet_jax.models import build
from bitnet_jax.training import plan, setup, steps

NETWORKS = (
  'bitnet', 'wide_resnet', 'plainnet', 'bitnet26', 'bitnet34', 'resnet18b', 'resnet34b'
)  # fmt: skip
STEP = 3


def value_of(path, leaf):
  name = jax.tree_util.keystr(path, simple=True, separator='/')
  value = zlib.crc32(name.encode()) % 1000 / 1000 + 0.5 if leaf.dtype.kind == 'f' else STEP
  return np.full(leaf.shape, value, leaf.dtype)


class GoldenTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
    with tarfile.open(pathlib.Path(__file__).with_name('golden.tar.xz')) as archive:
      archive.extractall(cls.folder, filter='data')

  @parameterized.parameters(*NETWORKS)
  def test_state_is_restored(self, name):
    workdir = str(self.folder / name)
    run = pretrained.load(workdir)
    config = run.config
    self.assertEqual((run.step, run.class_names), (STEP, ('ape', 'bee', 'cow')))
    self.assertEqual(config.model.name, name)

    model = build.make_model(config, len(run.class_names), devices.AXIS)
    optimizer, _ = setup.make_optimizer(config, plan.make_plan(config, 256, True))
    shapes = steps.state_shapes(model, optimizer, run.image_shape)
    template = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    expected = jax.tree_util.tree_map_with_path(value_of, template)
    checkpoints = Checkpoints(workdir)
    self.addCleanup(checkpoints.close)
    record = checkpoints.read_record(STEP)
    self.assertEqual((record['seconds'], record['settled']), (1.5, True))
    restored = checkpoints.restore(STEP, template)
    jax.tree.map(np.testing.assert_array_equal, restored, expected)
    jax.tree.map(np.testing.assert_array_equal, run.variables['params'], expected.params)


if __name__ == '__main__':
  absltest.main()
