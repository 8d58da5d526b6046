"""What the manifest of a checkpoint costs, beside the steps between two checkpoints."""

import json
import time

import numpy as np
from absl.testing import absltest

from bitnet_jax import manifest
from tests.faults import process
from tests.faults.process import FOUND


class DigestTest(process.FaultCase):
  def test_share_of_an_epoch(self):
    """The quickstart's network; a checkpoint at the end of each epoch, as is the default."""
    fields = {'model.width': 2, 'model.tree_depth': 3, 'data.image_size': 16, 'num_epochs': 2}
    workdir = self.folder / 'run'
    self.completes(workdir, **fields, **{'checkpoint.every_steps': 0, 'checkpoint.every_epochs': 1})
    rows = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    step = np.median([row['seconds_per_step'] for row in rows if 'seconds_per_step' in row])
    folder, listed = workdir / 'checkpoints' / '44', workdir / 'manifests' / '44.json'
    started = time.perf_counter()
    for _ in range(10):
      manifest.write(folder, listed)
      self.assertEqual(manifest.problem(folder, listed), '')
    seconds = (time.perf_counter() - started) / 10
    share = seconds / (22 * step)
    self.assertLess(share, 0.02)
    text = f'{seconds * 1e3:.1f} ms for 22 steps of {step * 1e3:.0f} ms: {share:.2%}'
    FOUND.append(('manifest written and verified', text))


if __name__ == '__main__':
  absltest.main()
