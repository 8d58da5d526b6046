"""Every audited network is in the trade-off plot, and its labels lie apart."""

import itertools
import tempfile

from absl.testing import absltest, parameterized
from matplotlib.backends.backend_agg import FigureCanvasAgg

from bitnet_jax.analysis import tradeoff
from bitnet_jax.analysis.audit import measured, paper
from bitnet_jax.analysis.plotting import labels, plots
from tests.helpers.finished_run import make_run


class PointsTest(parameterized.TestCase):
  def test_each_network_of_the_tables_is_there_once(self):
    for cell in tradeoff.CELLS:
      built = {row.network for row in paper.ROWS if cell in row.errors and row.network}
      found = tradeoff.points(cell, 'multiply_adds')
      self.assertLen(found, len(built), cell)
      self.assertLen(set(found), len(found))

  def test_quoted_networks_have_a_printed_size(self):
    quoted = [p for p in tradeoff.points('cifar10', 'parameters') if p.family == 'quoted']
    self.assertEqual(
      {(point.label, point.size, point.error) for point in quoted},
      {
        ('ResNet-1202', 10.2, 4.91),
        ('preact-ResNet-1001', 10.2, 4.62),
        ('Stochastic Depth ResNet-110', 1.7, 5.25),
        ('FractalNet-40', 22.9, 5.24),
      },
    )

  def test_sizes_are_ours_and_errors_the_papers(self):
    found = tradeoff.points('cifar100', 'multiply_adds')
    (point,) = [p for p in found if (p.family, p.label) == ('wide_resnet', '4,2,6')]
    self.assertEqual((point.size, point.error), (1.298582016, 22.89))

  def test_series_of_table_5(self):
    found = tradeoff.points('cifar100', 'parameters')
    series = [point.label for point in found if point.series == '12,k,2']
    self.assertEqual(sorted(series), [f'12,{k},2' for k in range(1, 7)])

  def test_measured_errors_beside_or_beyond_the_papers(self):
    folder = self.enterContext(tempfile.TemporaryDirectory())
    make_run(folder, 'good', correct=9500)
    make_run(folder, 'short', correct=6000, num_epochs=2.0)
    runs = measured.find([folder])
    ours = {p.label: p for p in tradeoff.points('cifar10', 'parameters', runs) if p.is_ours}
    errors = {label: point.error for label, point in ours.items()}
    self.assertEqual(errors, {'4,6,2 @200': 5.0, '4,6,2 @2': 40.0})
    shown, beyond = tradeoff._within(tradeoff.points('cifar10', 'parameters', runs))
    self.assertIn(ours['4,6,2 @200'], shown)
    self.assertEqual(beyond, [ours['4,6,2 @2']])


class FigureTest(absltest.TestCase):
  def test_labels_neither_overlap_nor_leave_their_panel(self):
    fig = tradeoff.draw()
    canvas = FigureCanvasAgg(fig)
    canvas.draw()
    for panel in fig.axes:
      boxes = [text.get_window_extent(canvas.get_renderer()) for text in panel.texts]
      self.assertNotEmpty(boxes)
      for first, second in itertools.combinations(boxes, 2):
        self.assertFalse(first.overlaps(second), (first, second))
      frame = panel.get_window_extent()
      for box in boxes:
        self.assertTrue(frame.x0 < box.x0 < box.x1 < frame.x1, box)

  def test_a_label_without_room_is_reported(self):
    fig = plots.new_figure(1.2, 1.2)
    panel = fig.subplots()
    points = [(0.5, 0.5), (0.5, 0.5), (0.51, 0.5)]
    panel.plot(*zip(*points, strict=True), 'o')
    placed = labels.place(labels.settle(fig), panel, points, ['a label that is too long'] * 3)
    self.assertEqual(placed, 3)


if __name__ == '__main__':
  absltest.main()
