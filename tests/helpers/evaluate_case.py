"""A run that was never trained, and its evaluation by NumPy."""

import tempfile

import numpy as np
from absl.testing import parameterized

from bitnet_jax.data.batches import arrays
from bitnet_jax.data.datasets import prepared, sources
from bitnet_jax.models import build
from tests.helpers import fake_run


class EvaluateCase(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.data_dir = cls.enterClassContext(tempfile.TemporaryDirectory())
    prepared.prepare('digits', cls.data_dir)
    cls.workdir = cls.enterClassContext(tempfile.TemporaryDirectory())
    cls.config = fake_run.make_config(cls.data_dir)
    cls.states = fake_run.make_run(cls.workdir, cls.config, seeds=(3, 4))
    cls.source = sources.open_source('digits', 'test', cls.data_dir)
    cls.loaded = arrays.load_arrays(cls.source, 8)

  def logits(self, images, step=2):
    """Of the network applied to all images at once, outside of any map over devices."""
    state = self.states[step - 1]
    model = build.make_model(self.config, 10, '')
    inputs = (images.astype(np.float64) - 77.9) / 95.7
    variables = {'params': state.params, 'batch_stats': state.batch_stats}
    return np.asarray(model.apply(variables, inputs.astype(np.float32), train=False))

  def expect(self, logits, labels):
    ranks = (logits >= np.take_along_axis(logits, labels[:, None], 1)).sum(axis=1)
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_shares = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return {
      'error': (ranks > 1).mean(),
      'error_top5': (ranks > 5).mean(),
      'loss': -log_shares[np.arange(len(labels)), labels].mean(),
    }

  def assert_result(self, result, expected):
    for name, value in expected.items():
      self.assertAlmostEqual(result[name], value, places=5, msg=name)
