"""The learning curves show what stands in the metrics file."""

import json
import pathlib
import subprocess
import sys
import tempfile

from absl.testing import absltest, parameterized

from bitnet_jax import errors
from bitnet_jax.analysis import curves
from bitnet_jax.analysis.plotting import plots
from tests.helpers.processes import run_program

_ROWS = [
  {'kind': 'train', 'step': 1, 'epoch': 0.5, 'loss': 2.25, 'error': 0.875, 'learning_rate': 0.1},
  {'kind': 'train', 'step': 2, 'epoch': 1.0, 'loss': 1.75, 'error': 0.625, 'learning_rate': 0.02},
  {'kind': 'epoch', 'epoch': 1, 'loss': 2.0, 'error': 0.75, 'stem_gradient_norm': 3.5},
  {'kind': 'eval', 'step': 2, 'epoch': 1.0, 'loss': 1.5, 'error': 0.5},
  {'kind': 'epoch', 'epoch': 2, 'loss': 1.0, 'error': 0.25, 'stem_gradient_norm': 2.5},
  {'kind': 'eval', 'step': 4, 'epoch': 2.0, 'loss': 1.25, 'error': 0.375},
]


def _lines(fig) -> dict[str, list[tuple[float, float]]]:
  return {
    line.get_gid(): list(zip(*map(list, line.get_data()), strict=True))
    for panel in fig.axes
    for line in panel.get_lines()
  }


class CurvesTest(parameterized.TestCase):
  def _directory(self) -> pathlib.Path:
    return pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

  def _workdir(self, text: str | None = None, name: str = 'run') -> str:
    workdir = self._directory() / name
    workdir.mkdir(parents=True)
    if text is None:
      text = ''.join(json.dumps(row) + '\n' for row in _ROWS)
    (workdir / 'metrics.jsonl').write_text(text)
    return str(workdir)

  def test_lines_hold_the_rows_of_the_file(self):
    fig = curves.draw({'run': curves.curves_of(curves.read_rows(self._workdir()))})
    self.assertEqual(
      _lines(fig),
      {
        'run/train_loss': [(1, 2.0), (2, 1.0)],
        'run/test_loss': [(1, 1.5), (2, 1.25)],
        'run/train_error': [(1, 75.0), (2, 25.0)],
        'run/test_error': [(1, 50.0), (2, 37.5)],
        'run/learning_rate': [(0.5, 0.1), (1, 0.02)],
        'run/stem_gradient_norm': [(1, 3.5), (2, 2.5)],
      },
    )

  def test_each_quantity_is_in_its_panel(self):
    fig = curves.draw({'run': curves.curves_of(_ROWS)})
    panels = {
      panel.get_title(loc='left'): {line.get_gid().split('/')[1] for line in panel.get_lines()}
      for panel in fig.axes
    }
    self.assertEqual(
      panels,
      {
        'Loss': {'train_loss', 'test_loss'},
        'Error': {'train_error', 'test_error'},
        'Learning rate': {'learning_rate'},
        'Gradient at the stem': {'stem_gradient_norm'},
      },
    )
    for panel in fig.axes:
      self.assertNotEmpty(panel.get_xlabel() and panel.get_ylabel())

  def test_batches_stand_in_where_no_epoch_is_complete(self):
    fig = curves.draw({'run': curves.curves_of(_ROWS[:2])})
    self.assertEqual(_lines(fig)['run/train_loss'], [(0.5, 2.25), (1, 1.75)])

  def test_later_row_counts_and_order_is_by_epoch(self):
    again = [_ROWS[5], _ROWS[3], {**_ROWS[3], 'loss': 9.0}]
    self.assertEqual(curves.select(again, 'eval', 'loss'), ([1.0, 2.0], [9.0, 1.25]))

  def test_values_that_are_not_finite_are_left_out(self):
    rows = [{**_ROWS[3], 'loss': float('nan')}, _ROWS[5], {**_ROWS[3], 'epoch': 3, 'loss': None}]
    self.assertEqual(curves.select(rows, 'eval', 'loss'), ([2.0], [1.25]))

  def test_runs_differ_in_color_as_the_legend_says(self):
    fig = curves.draw({name: curves.curves_of(_ROWS) for name in ('first', 'second')})
    drawn = {
      (line.get_gid().split('/')[0], line.get_color())
      for panel in fig.axes
      for line in panel.get_lines()
    }
    self.assertEqual(drawn, {('first', curves.COLORS[0]), ('second', curves.COLORS[1])})
    (legend,) = fig.legends
    texts = [text.get_text() for text in legend.get_texts()]
    self.assertEqual(texts, ['first', 'second', 'training', 'test'])
    handles = [line.get_color() for line in legend.get_lines()[:2]]
    self.assertEqual(handles, list(curves.COLORS[:2]))

  def test_directory_of_the_output_is_made(self):
    output = self._directory() / 'new/curves.svg'
    curves.write([self._workdir()], str(output))
    self.assertIn('<svg', output.read_text())

  def test_runs_named_alike_keep_their_own_lines(self):
    first, second = self._workdir(name='a/run'), self._workdir(name='b/run')
    self.assertEqual(plots.names([first, second]), [first, second])
    self.assertEqual(plots.names([first, first[:-3] + 'other/']), ['run', 'other'])

  def test_more_runs_than_colors_are_refused(self):
    self.assertLen(set(curves.COLORS), 7)
    with self.assertRaisesRegex(errors.ConfigError, r'8 of them.*7 can'):
      curves.write([str(index) for index in range(8)], 'curves.png')

  @parameterized.parameters('curves.pdf', 'curves')
  def test_other_formats_are_refused(self, output):
    with self.assertRaisesRegex(errors.ConfigError, f'output={output}: neither PNG nor SVG'):
      curves.write([self._workdir()], output)

  def test_png_is_written(self):
    output = self._directory() / 'curves.png'
    curves.write([self._workdir()], str(output))
    self.assertEqual(output.read_bytes()[:8], b'\x89PNG\r\n\x1a\n')

  @parameterized.parameters(
    '{"kind": "eval", "epoch"\n', '[1, 2]\n', '{"epoch": 1}\n', '{"kind": "eval"}\n', '\n', '7\n'
  )
  def test_malformed_line_is_named(self, line):
    workdir = self._workdir(json.dumps(_ROWS[0]) + '\n' + line + json.dumps(_ROWS[1]) + '\n')
    with self.assertRaisesRegex(errors.DataError, r'metrics\.jsonl:2: not a row'):
      curves.read_rows(workdir)

  def test_unfinished_last_line_is_left_out(self):
    text = json.dumps(_ROWS[0]) + '\n' + json.dumps(_ROWS[1])
    self.assertEqual(curves.read_rows(self._workdir(text)), _ROWS[:1])
    with self.assertRaisesRegex(errors.DataError, 'is empty'):
      curves.read_rows(self._workdir(json.dumps(_ROWS[0]), name='none'))

  def test_missing_metrics_are_one_line(self):
    workdir = self._directory()
    command = [sys.executable, '-m', 'bitnet_jax.analysis.curves', '--output=curves.png']
    done = subprocess.run([*command, f'--workdir={workdir}'], capture_output=True, text=True)
    self.assertEqual(done.returncode, 3)
    self.assertRegex(done.stderr, rf'\Abitnet_jax: error: workdir={workdir}: [^\n]*; [^\n]*\n\Z')

  def test_command_draws_without_jax(self):
    output = self._directory() / 'curves.png'
    arguments = f'--workdir={self._workdir()}', f'--output={output}'
    done = run_program('watched_command', 'jax', 'bitnet_jax.analysis.curves', *arguments)
    self.assertEqual((done.returncode, done.stdout), (0, f'curves: {output}\n[]\n'), done.stderr)
    self.assertTrue(output.exists())


if __name__ == '__main__':
  absltest.main()
