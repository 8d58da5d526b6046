"""The audit's command: formats, exit codes, and a page that needs nothing beside it."""

import html.parser
import json
import pathlib
import subprocess
import sys
import tempfile

from absl.testing import absltest

from bitnet_jax.analysis import report
from bitnet_jax.analysis.audit import formats, tables
from tests.helpers.finished_run import make_run
from tests.helpers.processes import run_program


def _audit(*arguments):
  command = [sys.executable, '-m', 'bitnet_jax.audit', *arguments]
  return subprocess.run(command, capture_output=True, text=True)


class CommandTest(absltest.TestCase):
  def test_runs_are_read_and_every_count_is_exact(self):
    folder = self.enterContext(tempfile.TemporaryDirectory())
    make_run(folder, 'run', correct=9512)
    done = _audit('--format=json', f'--measured={folder}')
    self.assertEqual((done.returncode, done.stderr), (0, ''))
    rows = {row['key']: row for row in json.loads(done.stdout)['rows']}
    cell = rows['table2/bitnet-4,6,2']['errors'][0]
    self.assertAlmostEqual(cell['measured'][0]['mean'], 4.88)

  def test_missed_count_is_named_and_ends_with_1(self):
    done = run_program('audit_missed_count')
    self.assertEqual(done.returncode, 1, done.stderr)
    self.assertEqual(
      done.stderr,
      'bitnet_jax: missed: wide_resnet-4,2,6 depth (10 classes, with batch norm, 1x1 projections): '
      '38, not 39 x 1\n',
    )
    self.assertLen(json.loads(done.stdout)['missed'], 1)

  def test_faults_are_told_in_one_line(self):
    done = _audit('--measured=nowhere')
    self.assertEqual(done.returncode, 3)
    self.assertRegex(done.stderr, r'\Abitnet_jax: error: workdir=nowhere: has no [^\n]*\n\Z')


class _Page(html.parser.HTMLParser):
  """Collects what a page refers to, and its cells."""

  def __init__(self):
    super().__init__()
    self.references, self.ids, self.images = [], set(), 0

  def handle_starttag(self, tag, attrs):
    attributes = dict(attrs)
    self.images += tag == 'img'
    self.ids.add(attributes.get('id'))
    self.references += [
      attributes[name] for name in ('src', 'href', 'srcset') if name in attributes
    ]


class ReportTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
    workdirs = [make_run(cls.folder / 'runs', f'run{k}', seed=k) for k in range(8)]
    cls.audit = tables.audit(report.measured.find(workdirs))
    path = report.write(cls.audit, workdirs, cls.folder / 'page')
    cls.text = path.read_text()
    cls.page = _Page()
    cls.page.feed(cls.text)

  def test_nothing_is_loaded_from_elsewhere(self):
    for reference in self.page.references:
      if reference.startswith('#'):
        self.assertIn(reference[1:], self.page.ids)
      else:
        self.assertStartsWith(reference, 'data:image/svg+xml;base64,')
    for word in ('@import', 'url(', '<script', '<link'):
      self.assertNotIn(word, self.text)

  def test_figures_are_in_the_page_and_in_both_formats(self):
    names = {'figure1', 'tradeoff', 'regions', 'figure2', 'curves1', 'curves2'}
    files = {path.name for path in (self.folder / 'page').iterdir()}
    self.assertEqual(
      files, {'index.html', *(f'{name}.{suffix}' for name in names for suffix in ('png', 'svg'))}
    )
    self.assertEqual(self.page.images, len(names))

  def test_every_row_and_sentence_is_in_the_page(self):
    for row in self.audit['rows']:
      self.assertIn(f'<td>{row["key"].partition("/")[2]}</td>', self.text)
    for sentence in formats.sentences(self.audit):
      self.assertIn(report.html.escape(sentence), self.text)
    self.assertIn('5.00 ± 0.00 (8 runs, 200 epochs)', self.text)
    self.assertIn('93 of 93 counts', self.text)


if __name__ == '__main__':
  absltest.main()
