"""What the manifest of a checkpoint costs, beside the steps between two checkpoints."""

import json
import time

import numpy as np
from absl.testing import absltest

from bitnet_jax.checkpoints import manifest, quarantine
from tests.helpers import faults
from tests.helpers.faults import FOUND


class DigestTest(faults.FaultCase):
  def test_share_of_an_epoch(self):
    """The quickstart's network; a checkpoint at the end of each epoch, and three of them kept."""
    fields = {'model.width': 2, 'model.tree_depth': 3, 'data.image_size': 16, 'num_epochs': 3}
    fields |= {'checkpoint.every_steps': 0, 'checkpoint.every_epochs': 1}
    workdir = self.folder / 'run'
    self.completes(workdir, **fields, **{'checkpoint.keep_latest': 3})
    rows = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
    step = np.median([row['seconds_per_step'] for row in rows if 'seconds_per_step' in row])
    folder, listed = workdir / 'checkpoints' / '66', workdir / 'manifests' / '66.json'
    write = self.seconds(lambda: manifest.write(folder, listed))
    verify = self.seconds(lambda: self.assertEqual(quarantine.quarantine(workdir), {22, 44, 66}))
    share = (write + verify) / (22 * step)
    self.assertLess(share, 0.02)
    text = f'{write * 1e3:.1f} ms, all three verified: {verify * 1e3:.1f} ms'
    FOUND.append(('manifest written', f'{text}, of 22 steps of {step * 1e3:.0f} ms {share:.2%}'))

  def seconds(self, function, times=10):
    """The median, as that of the steps."""
    took = []
    for _ in range(times):
      started = time.perf_counter()
      function()
      took.append(time.perf_counter() - started)
    return np.median(took)


if __name__ == '__main__':
  absltest.main()
