"""A work directory with small checkpoints."""

import contextlib
import io
import pathlib

import numpy as np
from absl.testing import parameterized

from bitnet_jax import errors
from bitnet_jax.checkpoints import manager


def tree(value):
  rng = np.random.default_rng(value)
  return {'step': np.array(value, np.int32), 'params': {'w': rng.normal(size=(3, 4, 5))}}


class CheckpointCase(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.workdir = self.create_tempdir().full_path
    self.directory = pathlib.Path(self.workdir, 'checkpoints')

  def open(self, **options):
    checkpoints = manager.Checkpoints(self.workdir, **options)
    self.addCleanup(checkpoints.close)
    return checkpoints

  def save(self, *steps):
    checkpoints = manager.Checkpoints(self.workdir, keep_latest=5)
    for step in steps:
      checkpoints.save(step, tree(step), {'seconds': 1.5}, 1 / step)
    checkpoints.close()

  def files(self, step):
    return sorted(path for path in (self.directory / str(step)).rglob('*') if path.is_file())

  def reopen(self):
    """Opens and gives the step it offers, with what it printed to stderr."""
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
      checkpoints = self.open(keep_latest=5)
    return checkpoints, stderr.getvalue()

  def refused(self, line):
    """Opening fails, twice and with the same line, and moves nothing: no run begins anew."""
    before = sorted(pathlib.Path(self.workdir).rglob('*'))
    for _ in range(2):
      with self.assertRaisesRegex(errors.CheckpointError, line) as caught:
        manager.Checkpoints(self.workdir)
      self.assertEqual(caught.exception.exit_code, 4)
    self.assertEqual(sorted(pathlib.Path(self.workdir).rglob('*')), before)
