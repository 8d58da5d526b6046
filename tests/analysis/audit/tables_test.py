"""The audit finds every count, and says under which convention a printed figure appears."""

import collections
import importlib.util
from unittest import mock

from absl.testing import absltest, parameterized

from bitnet_jax.analysis.audit import measured, paper, tables
from tests.helpers.paths import ROOT

_CONFIGS = ROOT / 'configs'


def _load(name):
  spec = importlib.util.spec_from_file_location(name, _CONFIGS / f'{name}.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config()


class AuditTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.audit = tables.audit()
    cls.rows = {row['key']: row for row in cls.audit['rows']}

  def test_every_count_is_met(self):
    self.assertEqual(self.audit['missed'], [])
    self.assertLen(self.audit['golden'], 93)

  def test_every_line_of_the_tables_is_there_once(self):
    lines = collections.Counter(row['table'] for row in self.audit['rows'])
    self.assertEqual(lines, {2: 22, 3: 2, 4: 8, 5: 12, 6: 9, 7: 14})
    self.assertLen(self.rows, 67)

  def test_a_count_that_is_off_by_one_is_missed(self):
    entry = paper.GOLDEN[1]
    wrong = [paper.dataclasses.replace(entry, digits=str(int(entry.digits) + 1)), *paper.GOLDEN[2:]]
    with mock.patch.object(paper, 'GOLDEN', tuple(wrong)):
      (missed,) = tables.audit()['missed']
    self.assertEqual(
      (missed['network'], missed['quantity'], missed['counted']),
      ('wide_resnet-4,2,6', 'parameters', 8949210),
    )

  @parameterized.parameters('4,2,6', '10,2,2', '10,2,3', '12,2,4')
  def test_baselines_cost_needs_larger_projections(self, sizes):
    row = self.rows[f'table2/wide_resnet-{sizes}']
    for quantity, kernel in (('parameters', 1), ('multiply_adds', 3)):
      appears = [
        entry['convention'] for entry in row[quantity]['by_convention'] if entry['appears']
      ]
      self.assertNotEmpty(appears)
      for convention in appears:
        self.assertIn(f'{kernel}x{kernel} projections', convention)
    self.assertStartsWith(row['sentence'], 'No one convention')

  def test_table_3_leaves_batch_norm_out(self):
    for name in ('bitnet26', 'bitnet34'):
      row = self.rows[f'table3/{name}']
      appears = [
        entry['convention'] for entry in row['parameters']['by_convention'] if entry['appears']
      ]
      self.assertEqual(appears, ['1000 classes, without batch norm, 1x1 projections'])
      self.assertEqual(row['output_sizes']['ours'], row['output_sizes']['paper'])
      self.assertEqual(row['sentence'], '')

  @parameterized.parameters('resnet18b', 'resnet34b')
  def test_table_4_appears_with_larger_projections(self, name):
    figure = self.rows[f'table4/{name}']['parameters']
    self.assertIn('3x3 projections', figure['appears_under'])
    self.assertIn('only with 3x3 projections', figure['sentence'])

  def test_bitnets_of_table_2_appear_as_trained(self):
    for key, row in self.rows.items():
      if key.startswith('table2/bitnet'):
        for quantity in ('parameters', 'multiply_adds'):
          self.assertTrue(row[quantity]['by_convention'][0]['appears'], key)

  def test_widths_that_table_4_mislabels_are_said(self):
    sentence = self.rows['table4/resnet18b-x1.5']['parameters']['sentence']
    self.assertIn("It is the width 1.5; the label's 2 would have 45.6 M.", sentence)

  def test_figure_that_no_convention_gives_is_none(self):
    row = paper.dataclasses.replace(paper.ROWS[8], parameters='9.9')
    figure = tables.audit_row(row, [])['parameters']
    self.assertIsNone(figure['appears_under'])
    self.assertIn('9.9 M appears under no convention; the nearest', figure['sentence'])
    self.assertIn('(100 classes, with batch norm, 3x3 projections)', figure['sentence'])

  def test_depth_is_the_printed_one(self):
    for row in self.audit['rows']:
      if row['network'] and row['depth']['paper']:
        self.assertEqual(row['depth']['ours'], row['depth']['paper'], row['key'])

  def test_stated_shares(self):
    found = {(claim['network'], claim['baseline']): claim for claim in self.audit['claims']}
    headline = found['bitnet-12,4,2', 'wide_resnet-12,2,4']
    self.assertEqual((headline['ours_percent'], headline['agrees']), (28.38, True))
    half = found['bitnet26', 'resnet34b']
    self.assertEqual((half['ours_percent'], half['agrees']), (58.72, False))
    self.assertEqual(found['bitnet34', 'resnet34b']['section'], '')


class RoundingTest(parameterized.TestCase):
  @parameterized.parameters(
    (1_649_999, '1.6', 10**6, True),
    (1_650_000, '1.6', 10**6, True),
    (1_650_000, '1.7', 10**6, True),
    (1_650_001, '1.6', 10**6, False),
    (1_549_999, '1.6', 10**6, False),
    (2_800_000_000, '2.8', 10**9, True),
    (2_850_000_001, '2.8', 10**9, False),
    (15_000_000, '15.0', 10**6, True),
    (15_050_001, '15.0', 10**6, False),
    (8_949_210, '8949210', 1, True),
    (8_949_211, '8949210', 1, False),
  )
  def test_digits_that_are_printed_decide(self, count, digits, unit, agree):
    self.assertEqual(tables.agrees(count, digits, unit), agree)


class RecipesTest(parameterized.TestCase):
  @parameterized.parameters('cifar10_bitnet', 'cifar100_wide_resnet', 'imagenet_bitnet34')
  def test_a_config_file_departs_in_nothing(self, name):
    self.assertEqual(measured.departures(_load(name).to_dict()), ())


if __name__ == '__main__':
  absltest.main()
