"""What CONTRIBUTING says of adding a network, a data set and a schedule works, place by place."""

import json
import pathlib
import shutil
import subprocess
import sys
import tempfile

import numpy as np
from absl.testing import absltest
from PIL import Image

from tests.helpers import train_process
from tests.helpers.paths import ROOT, program

TOYS = ROOT / 'tests' / 'helpers' / 'toys'


class ExtensionTest(train_process.DataCase):
  """Each test changes a copy of the package as a newcomer would, then runs its commands."""

  def setUp(self):
    super().setUp()
    self.copy = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    shutil.copytree(ROOT / 'bitnet_jax', self.copy / 'bitnet_jax')
    self.workdir = self.copy / 'run'

  def insert(self, file, after, text):
    """Adds text behind a line of a file, which has to be in it once."""
    path = self.copy / 'bitnet_jax' / file
    content = path.read_text()
    self.assertEqual(content.count(after), 1, file)
    path.write_text(content.replace(after, after + text))

  def run_command(self, *arguments):
    environment = {**train_process.environment(1), 'PYTHONPATH': str(self.copy)}
    done = subprocess.run(
      arguments, env=environment, cwd=self.copy, capture_output=True, text=True, timeout=300
    )
    self.assertEqual(done.returncode, 0, done.stderr[-3000:])
    return done.stdout

  def train(self, data_dir=None, **fields):
    fields = {'num_epochs': 0.5, 'log.every_steps': 5, **fields}
    command = train_process.command(self.workdir, data_dir or self.data_dir, fields)
    return self.run_command(*command)

  def rows(self, kind):
    lines = (self.workdir / 'metrics.jsonl').read_text().splitlines()
    return [row for row in map(json.loads, lines) if row['kind'] == kind]

  def test_network(self):
    shutil.copy(TOYS / 'toy.py', self.copy / 'bitnet_jax' / 'models' / 'toy.py')
    entry = "\n  'toy': NetworkEntry('toy.ToyNetwork', ('width',)),"
    self.insert('config/networks.py', 'NETWORKS = {', entry)
    self.insert('analysis/audit/paper.py', '_COUNTS = {', "\n  Network('toy', 1): (7, '2210', ''),")

    counted = self.run_command(sys.executable, str(program('golden_counts')), 'toy')
    self.assertEqual(counted.splitlines(), ['depth 7 7', 'parameters 2210 2210'])

    toy = {'model.name': 'toy', 'model.width': 1}
    self.train(**toy)
    self.assertIn('resumed from step 11', self.train(**toy, num_epochs=1))
    self.assertLess(self.rows('train')[-1]['loss'], self.rows('train')[0]['loss'])
    # Figure 2's quantity is that of a layer this network has not.
    self.assertNotIn('stem_gradient_norm', self.rows('epoch')[-1])

    run = (f'--workdir={self.workdir}',)
    evaluated = self.run_command(sys.executable, '-m', 'bitnet_jax.evaluate', *run)
    self.assertIn(f'{self.rows("eval")[-1]["error"]:.2%}', evaluated)
    image = self.copy / 'image.png'
    Image.fromarray(np.full((8, 8), 90, np.uint8)).save(image)
    predicted = self.run_command(sys.executable, '-m', 'bitnet_jax.predict', *run, image)
    self.assertRegex(predicted, r'image\.png: \d \d+\.\d%, \d \d+\.\d%')

  def test_data_set(self):
    source = (TOYS / 'stripes.py').read_text()
    builder = source[source.index('with tfds') :]
    path = self.copy / 'bitnet_jax' / 'data' / 'datasets' / 'builders.py'
    before, table = path.read_text().split('BUILDERS: dict')
    path.write_text(f'{before}{builder}\n\nBUILDERS: dict{table}')
    self.insert('data/datasets/builders.py', "  'digits': Digits,\n", "  'stripes': Stripes,\n")
    entry = "\n  'stripes': DatasetEntry(image_size=8),"
    self.insert('config/datasets.py', 'DATASETS = {', entry)

    data_dir = self.copy / 'data'
    prepare = (sys.executable, '-m', 'bitnet_jax.prepare', '--dataset=stripes')
    self.assertIn('train 200, test 40', self.run_command(*prepare, f'--data_dir={data_dir}'))
    fields = {'data.name': 'stripes', 'augment.pad': 0, 'num_epochs': 6, 'global_batch_size': 32}
    self.train(data_dir, **fields, **{'model.batch_norm_group': 0, 'checkpoint.every_steps': 0})
    self.assertLess(self.rows('eval')[-1]['error'], 0.1)

  def test_schedule(self):
    branch = """  elif schedule == 'linear':
    base = optax.linear_schedule(learning_rate, 0.0, max(total_steps, 1))
"""
    cosine = '    base = optax.cosine_decay_schedule(learning_rate, max(total_steps, 1))\n'
    self.insert('training/optim.py', cosine, branch)
    self.insert('config/fields.py', "choices=('step', 'cosine'", ", 'linear'")
    self.train(**{'optim.schedule': 'linear', 'optim.learning_rate': 0.1, 'log.every_steps': 1})
    rates = [row['learning_rate'] for row in self.rows('train')]
    np.testing.assert_allclose(rates, 0.1 * (1 - np.arange(11) / 11), rtol=1e-5)


if __name__ == '__main__':
  absltest.main()
