"""Errors of runs land in the cells of their networks, apart for each way of training."""

import json
import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest, parameterized

from bitnet_jax import errors
from bitnet_jax.analysis.audit import measured, networks, paper, tables
from bitnet_jax.config import recipes
from bitnet_jax.logs import result
from tests.helpers.finished_run import make_run


class MeasuredTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = self.enterContext(tempfile.TemporaryDirectory())

  def _cell(self, cell='cifar10', sizes=(4, 6, 2)):
    runs = measured.find([self.folder])
    return measured.summarize(runs, networks.bitnet(*sizes), cell)

  def test_seeds_give_mean_and_sample_deviation(self):
    for seed, correct in enumerate((9500, 9520, 9570)):
      make_run(self.folder, f'run{seed}', correct=correct, seed=seed)
    (group,) = self._cell()
    self.assertAlmostEqual(group['mean'], (5.0 + 4.8 + 4.3) / 3)
    self.assertAlmostEqual(group['std'], 0.36055512754)
    self.assertEqual((group['runs'], group['seeds'], group['epochs']), (3, [0, 1, 2], 200.0))
    self.assertEqual(group['departures'], [])

  def test_one_run_has_no_deviation(self):
    make_run(self.folder, 'run')
    self.assertIsNone(self._cell()[0]['std'])

  def test_ways_of_training_are_apart_the_papers_first(self):
    make_run(self.folder, 'a', num_epochs=4.0)
    make_run(self.folder, 'b', **{'optim.drop_factor': 0.1})
    make_run(
      self.folder,
      'c',
      correct=9600,
      **{
        'data.dir': '/elsewhere',
        'log.every_steps': 7,
        'steps_per_execution': 5,
        'watch.stall_seconds': 9.0,
      },
    )
    groups = self._cell()
    self.assertAlmostEqual(groups[0]['mean'], 4.0)
    self.assertEqual(
      [group['departures'] for group in groups],
      [[], ['optim.drop_factor=0.1'], ['num_epochs=4.0']],
    )

  def test_other_networks_and_data_are_left_out(self):
    make_run(self.folder, 'a', sizes=(4, 4, 3))
    make_run(self.folder, 'b', **{'data.name': 'cifar100'})
    self.assertEmpty(self._cell())
    self.assertLen(self._cell('cifar100'), 1)
    self.assertLen(self._cell(sizes=(4, 4, 3)), 1)

  def test_training_error_is_the_last_epochs(self):
    make_run(self.folder, 'a', **{'data.name': 'cifar100'})
    self.assertEqual(self._cell(paper.CIFAR100_TRAIN)[0]['mean'], 12.5)

  def _evaluated(self, workdir, name, **fields):
    folder = pathlib.Path(workdir, 'evaluation')
    folder.mkdir(exist_ok=True)
    (folder / f'{name}.json').write_text(json.dumps(fields))

  def test_evaluations_of_the_last_step_are_taken(self):
    workdir = make_run(self.folder, 'a', **{'data.name': 'cifar100'})
    step = result.read(workdir)['step']
    found = {'crops': 1, 'count': 1000, 'correct': 990}
    self._evaluated(workdir, 'early', split='train', step=step - 1, **(found | {'correct': 1}))
    self.assertEqual(self._cell(paper.CIFAR100_TRAIN)[0]['mean'], 12.5)
    self._evaluated(workdir, 'train', split='train', step=step, **found)
    self.assertEqual(self._cell(paper.CIFAR100_TRAIN)[0]['mean'], 1.0)

  def test_ten_crops(self):
    workdir = make_run(self.folder, 'a', **{'data.name': 'imagenet2012'})
    run = measured.read(workdir)
    self.assertIsNone(run.value(paper.TEN_CROP))
    final = result.read(workdir)
    found = {'split': final['split'], 'crops': 10, 'step': final['step']}
    self._evaluated(workdir, 'ten', **found, count=50000, correct=40000)
    self.assertEqual(measured.read(workdir).value(paper.TEN_CROP), 20.0)
    self._evaluated(workdir, 'ten', split='train')
    with self.assertRaisesRegex(errors.DataError, 'evaluation=.*ten.json: cannot be read'):
      measured.read(workdir)

  def test_a_part_of_the_test_images_is_a_departure(self):
    workdir = make_run(self.folder, 'a')
    path = pathlib.Path(workdir, 'result.json')
    path.write_text(json.dumps(json.loads(path.read_text()) | {'count': 50, 'correct': 49}))
    self.assertEqual(measured.read(workdir).departures, ('test images=50',))

  def test_recipe_of_cifar_100_is_no_departure_there(self):
    data = recipes.cifar_config('cifar100', 'bitnet', '4,6,2').data
    statistics = {'data.mean': data.mean, 'data.std': data.std}
    make_run(self.folder, 'a', **{'data.name': 'cifar100', **statistics})
    self.assertEqual(self._cell('cifar100')[0]['departures'], [])

  def test_audit_fills_every_table_that_has_the_network(self):
    make_run(self.folder, 'a', **{'data.name': 'cifar100'})
    make_run(self.folder, 'other', sizes=(2, 3, 1))
    # Networks of the same width are enough, and take a fraction of the time.
    rows = [row for row in paper.ROWS if '-4,' in row.key]
    with mock.patch.object(paper, 'ROWS', rows), mock.patch.object(paper, 'GOLDEN', ()):
      audit = tables.audit(measured.find([self.folder]))
    self.assertGreater(len(rows), 10)
    filled = {
      (row['key'], error['cell'])
      for row in audit['rows']
      for error in row['errors']
      if error['measured']
    }
    key = 'bitnet-4,6,2'
    expected = {(f'table{number}/{key}', 'cifar100') for number in (2, 6, 7)}
    self.assertEqual(filled, expected | {(f'table7/{key}', 'cifar100_train')})
    self.assertEqual([run['network'] for run in audit['unmatched_runs']], ['bitnet-2,3,1'])

  def test_work_directory_and_its_folder_count_once(self):
    workdir = make_run(self.folder, 'a')
    self.assertLen(measured.find([self.folder, workdir, workdir]), 1)

  def test_folder_without_runs(self):
    with self.assertRaisesRegex(errors.DataError, 'has no result.json'):
      measured.find([self.folder])

  @parameterized.parameters('', '{}', '{"model": {"name": "bitnet"}}', '[]', '{"seed": 0}')
  def test_damaged_configuration_is_named(self, text):
    workdir = make_run(self.folder, 'a')
    pathlib.Path(workdir, 'config.json').write_text(text)
    with self.assertRaisesRegex(errors.DataError, r'config=.*/config\.json: cannot be read'):
      measured.read(workdir)

  def test_configuration_of_an_older_version(self):
    workdir = make_run(self.folder, 'a', **{'optim.momentum': 0.8})
    path = pathlib.Path(workdir, 'config.json')
    config = json.loads(path.read_text())
    del config['augment'], config['optim']['nesterov']
    path.write_text(json.dumps(config))
    self.assertEqual(measured.read(workdir).departures, ('optim.momentum=0.8',))


if __name__ == '__main__':
  absltest.main()
