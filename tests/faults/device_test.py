"""A batch that no memory holds, under a real run."""

import re

from absl.testing import absltest

from tests.helpers import faults
from tests.helpers.faults import FOUND


class DeviceTest(faults.FaultCase):
  def test_batch_does_not_fit(self):
    fields = {'data.image_size': 512, 'global_batch_size': 1437, 'model.batch_norm_group': 0}
    run = self.start(self.folder / 'run', **fields, **{'model.width': 8})
    line = (
      r'config.global_batch_size=1437: a step needs ([0-9,.]+) GB of memory on a device, '
      r'which has ([0-9,.]+) GB; (use [0-9]+ or less|take a smaller network)'
    )
    took = self.ends(run, 2, line, since=run.started)
    need, have, remedy = re.search(line, self.text(run)).groups()
    self.assertGreater(float(need.replace(',', '')), float(have.replace(',', '')))
    FOUND.append(('out of memory', f'exit 2 after {took:.1f} s: {need} GB, {have} GB, {remedy}'))


if __name__ == '__main__':
  absltest.main()
