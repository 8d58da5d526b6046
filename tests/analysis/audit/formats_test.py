"""Every format tells the same."""

import csv
import io
import json
import tempfile

from absl.testing import absltest

from bitnet_jax import audit as command
from bitnet_jax.analysis.audit import formats, measured, tables
from tests.helpers.finished_run import make_run


class FormatsTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    folder = cls.enterClassContext(tempfile.TemporaryDirectory())
    for seed, correct in enumerate((9500, 9540)):
      make_run(folder, f'run{seed}', correct=correct, seed=seed)
    make_run(folder, 'short', correct=5000, num_epochs=3.0)
    make_run(folder, 'other', sizes=(2, 3, 1))
    cls.audit = tables.audit(measured.find([folder]))

  def _line(self, text, start):
    return next(line for line in text.splitlines() if line.strip().startswith(start))

  def test_json_is_the_audit(self):
    self.assertEqual(json.loads(formats.as_json(self.audit)), self.audit)

  def test_every_field_of_the_json_is_documented(self):
    def keys(value):
      if isinstance(value, dict):
        for key, inner in value.items():
          yield key
          yield from keys(inner)
      if isinstance(value, list):
        for inner in value:
          yield from keys(inner)

    words = set(command.__doc__.replace(',', ' ').replace(':', ' ').replace('`', ' ').split())
    undocumented = {key for key in keys(self.audit) if key not in words}
    self.assertEmpty(undocumented)

  def test_csv_has_each_figure_and_each_way_of_training(self):
    lines = list(csv.DictReader(io.StringIO(formats.as_csv(self.audit))))
    found = [
      line
      for line in lines
      if line['key'] == 'table2/bitnet-4,6,2' and line['quantity'] in ('parameters', 'cifar10')
    ]
    self.assertEqual(
      [(line['paper'], line['ours'], line['std'], line['runs'], line['seeds']) for line in found],
      [
        ('1700000', '1674154', '', '', ''),
        ('4.77', '4.8', found[1]['std'], '2', '0 1'),
        ('4.77', '50.0', '', '1', '0'),
      ],
    )
    self.assertAlmostEqual(float(found[1]['std']), 0.4 / 2**0.5)
    self.assertEqual(found[2]['departures'], 'num_epochs=3.0')
    self.assertLen({(line['key'], line['quantity']) for line in lines}, len(lines) - 1)

  def test_table_shows_mean_spread_runs_and_epochs(self):
    line = self._line(formats.as_table(self.audit), 'bitnet-4,6,2')
    self.assertIn('4.80 ± 0.28 (2 runs, 200 epochs)', line)
    self.assertIn('1,674,154', line)
    self.assertIn('not run', line)

  def test_columns_are_aligned(self):
    block = formats.as_table(self.audit).split('\n\n')[1].splitlines()
    head, end = block[0], block[0].index('M param.') + len('M param.')
    self.assertIn('CIFAR-100 %', head)
    for line in block[1:]:
      self.assertNotEqual(line[end - 1], ' ', line)
      self.assertEqual(line[end : end + 2], '  ', line)

  def test_markdown_rows_have_as_many_cells_as_heads(self):
    lines = formats.as_markdown(self.audit).splitlines()
    tables_ = [line for line in lines if line.startswith('|')]
    width = 0
    for line in tables_:
      if line.startswith('| row '):
        width = line.count('|')
      self.assertEqual(line.count('|'), width, line)
    self.assertLen(tables_, 67 + 2 * 6)

  def test_verdict_names_the_convention(self):
    rows = {row['key']: row for row in self.audit['rows']}
    for key, verdict in (
      ('table2/wide_resnet-4,2,6', 'G 3x3 projections'),
      ('table2/bitnet-4,6,2', 'yes'),
      ('table3/bitnet34', 'M without batch norm'),
      ('table2/nin', 'not built here'),
    ):
      self.assertEqual(formats.verdict(rows[key]), verdict)

  def test_a_missed_count_is_told(self):
    entry = {**self.audit['golden'][0], 'agrees': False, 'expected': '39'}
    audit = {**self.audit, 'missed': [entry]}
    self.assertIn('92 of 93 counts', formats.as_table(audit))
    self.assertIn('wide_resnet-4,2,6 depth', formats.missed(audit)[0])
    self.assertIn('38, not 39', formats.missed(audit)[0])


if __name__ == '__main__':
  absltest.main()
