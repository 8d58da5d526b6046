"""Counts of linear regions against sampling, closed forms and exact arithmetic; the bounds."""

import itertools
import math

import numpy as np
from absl.testing import absltest, parameterized

from bitnet_jax.analysis.regions import bounds, dense, relu_network
from bitnet_jax.analysis.regions.bounds import Shape

_PLANE = (np.zeros(2), np.eye(2))


def _draw(shape, *, tree, seed=0, bias=1.0, outputs=1):
  """Parameters of a network, as `DenseNetwork` names them."""
  stream = np.random.RandomState(seed)

  def layer(fan_in, features):
    kernel = stream.standard_normal((fan_in, features)) * math.sqrt(2 / fan_in)
    offset = bias * stream.uniform(-1, 1, features) / math.sqrt(fan_in)
    return {'kernel': kernel.astype(np.float32), 'bias': offset.astype(np.float32)}

  params, channels = {}, shape.num_inputs
  for block in range(1, shape.num_blocks + 1):
    layers = {}
    for level in range(1, shape.tree_depth + 1):
      filters = shape.features >> (level - 1) if tree else shape.features
      layers[f'level{level}_dense' if tree else f'layer{level}_dense'] = layer(channels, filters)
      channels = filters // 2 if tree else filters
    params[f'block{block}'] = layers
    channels = shape.features
  return {**params, 'head': layer(channels, outputs)}


def _one_layer(lines, head=None):
  """A network of one hidden layer whose neurons are zero on the lines (a, b, c)."""
  lines = np.array(lines, np.float64)
  head = np.ones((len(lines), 1)) if head is None else np.array(head, np.float64)
  return {
    'block1': {'layer1_dense': {'kernel': lines[:, :2].T, 'bias': lines[:, 2]}},
    'head': {'kernel': head, 'bias': np.zeros(head.shape[1])},
  }


def _cells(params, origin=_PLANE[0], axes=_PLANE[1], **options):
  return bounds.cells_on_plane(params, origin, axes, **options)


def _area(cell):
  s, t = cell.corners.T
  return 0.5 * float(np.dot(s, np.roll(t, -1)) - np.dot(t, np.roll(s, -1)))


def _patterns(rows):
  """The different ones among rows of bool."""
  packed = np.packbits(np.array(list(rows)), axis=1)
  return {row.tobytes() for row in np.unique(packed.view(f'V{packed.shape[1]}'))}


def _grid(side):
  ticks = (np.arange(side) + 0.5) / side * 2 - 1
  return np.stack(np.meshgrid(ticks, ticks), axis=-1).reshape(-1, 2)


_NETWORKS = tuple(itertools.product((True, False), (0, 1, 2)))


class NetworkTest(parameterized.TestCase):
  @parameterized.parameters(
    (dense.DenseBitBlock, 1), (dense.DenseBitBlock, 3), (dense.DenseConvenBlock, 3)
  )
  def test_layers_compute_what_the_module_computes(self, block, tree_depth):
    model = dense.DenseNetwork(block, 16, tree_depth, 2, 3)
    shape = Shape(16, tree_depth, 2, 4)
    params = _draw(shape, tree=block is dense.DenseBitBlock, outputs=3)
    points = np.random.RandomState(5).standard_normal((50, 4)).astype(np.float32)
    logits, patterns = relu_network.evaluate(relu_network.from_params(params), points)
    np.testing.assert_allclose(logits, model.apply({'params': params}, points), atol=1e-5)
    neurons = 32 * tree_depth if block is dense.DenseConvenBlock else 2 * (32 - (32 >> tree_depth))
    self.assertEqual(patterns.shape, (50, neurons))
    self.assertBetween(patterns.mean(), 0.2, 0.8)

  def test_neurons_that_nothing_active_reads_are_dead(self):
    network = relu_network.from_params(_draw(Shape(8, 2, 1, 2), tree=True))
    # Neurons 0 to 3 of level 1 go to the output, 4 to 7 to level 2, whose four are the rest.
    pattern = np.array([1, 1, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0], bool)
    expected = np.array([1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], bool)
    np.testing.assert_array_equal(relu_network.live(network, pattern), expected)
    pattern[8] = expected[8] = True
    expected[4:6] = True
    np.testing.assert_array_equal(relu_network.live(network, pattern), expected)


class SubdivisionTest(parameterized.TestCase):
  @parameterized.parameters(*_NETWORKS)
  def test_cells_are_a_grids_patterns_and_cover_it(self, tree, seed):
    params = _draw(Shape(8, 3, 2, 2), tree=tree, seed=seed)
    network, _, cells = _cells(params)
    patterns = _patterns(cell.pattern for cell in cells)
    self.assertLen(patterns, len(cells))
    seen = _patterns(relu_network.evaluate(network, _grid(250))[1])
    self.assertGreater(len(seen), 0.7 * len(patterns))
    self.assertLessEqual(seen, patterns)
    self.assertAlmostEqual(sum(map(_area, cells)), 4.0, places=12)
    # What the grid misses is there: within each cell the pattern is the cell's.
    centers = np.stack([cell.corners.mean(axis=0) for cell in cells])
    _, inside = relu_network.evaluate(network, centers)
    np.testing.assert_array_equal(inside, np.stack([cell.pattern for cell in cells]))

  def test_refined_sampling_finds_every_cell(self):
    params = _draw(Shape(4, 2, 2, 2), tree=True, seed=3)
    network, _, cells = _cells(params)
    seen = set()
    for zoom in (1, 2, 4, 8):  # Grids over ever smaller tiles of the window.
      for corner in itertools.product(range(zoom), repeat=2):
        tile = (_grid(100) + 1) / zoom + 2 * np.array(corner) / zoom - 1
        seen |= _patterns(relu_network.evaluate(network, tile)[1])
    self.assertGreater(len(cells), 10)
    self.assertEqual(seen, _patterns(cell.pattern for cell in cells))

  @parameterized.parameters(*_NETWORKS[:4])
  def test_slice_of_more_dimensions(self, tree, seed):
    params = _draw(Shape(8, 2, 2, 5), tree=tree, seed=seed)
    stream = np.random.RandomState(seed)
    origin, axes = stream.standard_normal(5), stream.standard_normal((2, 5))
    network, _, cells = _cells(params, origin, axes)
    found = _patterns(relu_network.evaluate(network, origin + _grid(250) @ axes)[1])
    patterns = _patterns(cell.pattern for cell in cells)
    self.assertLessEqual(found, patterns)
    self.assertGreater(len(found), 0.8 * len(patterns))

  @parameterized.parameters(*itertools.product((True, False), (0.0, 1.0)))
  def test_floating_point_with_its_filter_is_exact(self, tree, bias):
    params = _draw(Shape(8, 2, 2, 3), tree=tree, bias=bias, seed=1)
    origin, axes = np.array([0.25, 0.0, 0.5]), np.eye(3)[:2]
    filtered, exact = (_cells(params, origin, axes, always_exact=flag) for flag in (False, True))
    self.assertEqual(*(_patterns(cell.pattern for cell in found[2]) for found in (filtered, exact)))
    self.assertEqual(bounds.count_cells(*filtered)[:2], bounds.count_cells(*exact)[:2])
    self.assertGreater(exact[1].exact_signs, filtered[1].exact_signs)


class ClosedFormTest(parameterized.TestCase):
  @parameterized.parameters(1, 2, 5, 12)
  def test_lines_in_general_position(self, neurons):
    angles = np.pi * (np.arange(neurons) + 0.3) / neurons
    lines = [(math.cos(a), math.sin(a), 0.02 * math.cos(7 * a + 1)) for a in angles]
    count = bounds.count_on_plane(_one_layer(lines), *_PLANE)
    self.assertEqual(count.activation, 1 + neurons + math.comb(neurons, 2))
    self.assertEqual(count.linear, count.activation)

  @parameterized.parameters(*range(4))
  def test_arrangement_of_random_lines(self, seed):
    lines = np.random.RandomState(seed).uniform(-1, 1, (30, 3))
    corners = np.array(list(itertools.product((-1, 1), repeat=2)))
    values = corners @ lines[:, :2].T + lines[:, 2]
    crossing_window = int(((values > 0).any(axis=0) & (values < 0).any(axis=0)).sum())
    meeting_within = 0
    for first, second in itertools.combinations(lines, 2):
      point = np.linalg.solve([first[:2], second[:2]], [-first[2], -second[2]])
      meeting_within += bool((np.abs(point) < 1).all())
    count = bounds.count_on_plane(_one_layer(lines), *_PLANE)
    self.assertEqual(count.activation, 1 + crossing_window + meeting_within)

  @parameterized.parameters(*range(3))
  def test_segment_has_a_region_more_than_roots(self, seed):
    lines = np.random.RandomState(seed).uniform(-1, 1, (40, 3))
    start, end = np.array([-0.75, 0.5]), np.array([1.0, -0.25])
    at_start, at_end = (lines[:, :2] @ point + lines[:, 2] for point in (start, end))
    roots = int((at_start * at_end < 0).sum())
    self.assertGreater(roots, 5)
    count = bounds.count_on_line(_one_layer(lines), start, end)
    self.assertEqual(count.activation, 1 + roots)

  def test_segment_of_a_deep_network_as_sampled(self):
    params = _draw(Shape(8, 3, 2, 4), tree=True, seed=2)
    stream = np.random.RandomState(0)
    start, end = stream.standard_normal((2, 4))
    count = bounds.count_on_line(params, start, end)
    points = start + np.linspace(0, 1, 200_001)[:, None] * (end - start)
    _, patterns = relu_network.evaluate(relu_network.from_params(params), points)
    changes = (patterns[1:] != patterns[:-1]).any(axis=1).sum()
    self.assertGreater(count.activation, 8)
    self.assertEqual(count.activation, 1 + changes)


class DegenerateTest(parameterized.TestCase):
  @parameterized.named_parameters(
    ('three_lines_through_a_point', [(1, 0, 0), (0, 1, 0), (1, 1, 0)], 6),
    ('the_same_line_twice', [(1, 2, 0.25), (2, 4, 0.5)], 2),
    ('a_line_and_its_reverse', [(1, 2, 0.25), (-1, -2, -0.25)], 2),
    ('parallel_lines', [(1, 1, 0), (1, 1, 0.5), (1, 1, -0.5)], 4),
    ('through_corners_of_the_window', [(1, -1, 0), (1, 1, 0)], 4),
    ('touching_a_corner', [(1, 1, -2)], 1),
    ('along_an_edge', [(1, 0, -1), (0, 1, 0)], 2),
    ('nothing_but_a_bias', [(0, 0, 1), (0, 0, -1), (0, 0, 0)], 1),
    ('a_rounding_error_apart', [(1, 1, 0.3), (1, 1, 0.1 + 0.2)], 3),
    ('a_corner_cut_off_by_a_rounding_error', [(0.1, 0.2, 0.3)], 2),
  )
  def test_lines(self, lines, expected):
    self.assertEqual(bounds.count_on_plane(_one_layer(lines), *_PLANE).activation, expected)

  def test_last_layer_that_is_zero_on_old_corners(self):
    # Both hidden neurons are zero at the origin, and so is their difference.
    params = _one_layer([(1, 0, 0), (0, 1, 0)])
    params['block1']['layer2_dense'] = {
      'kernel': np.array([[1.0], [-1.0]]),
      'bias': np.zeros(1),
    }
    params['head'] = {'kernel': np.ones((1, 1)), 'bias': np.zeros(1)}
    # max(s, 0) - max(t, 0) is positive where s > 0 and t < s: it cuts the first quadrant alone.
    count = bounds.count_on_plane(params, *_PLANE)
    self.assertEqual(count.activation, 5)
    # s for t < 0 < s, s - t for 0 < t < s, and 0 elsewhere.
    self.assertEqual(count.linear, 3)

  def test_head_that_reads_nothing_has_one_region(self):
    lines = [(1, 0, 0), (0, 1, 0.5)]
    count = bounds.count_on_plane(_one_layer(lines, head=np.zeros((2, 1))), *_PLANE)
    self.assertEqual((count.activation, count.linear), (4, 1))

  def test_equal_functions_of_different_neurons(self):
    # |s| as a sum, and its negative: the slopes cancel everywhere.
    lines = [(1, 0, 0), (-1, 0, 0), (1, 0, 0), (-1, 0, 0)]
    count = bounds.count_on_plane(_one_layer(lines, head=[[1], [1], [-1], [-1]]), *_PLANE)
    self.assertEqual((count.activation, count.linear), (2, 1))


class LinearTest(parameterized.TestCase):
  @parameterized.parameters(*_NETWORKS[:4])
  def test_functions_are_those_that_differences_find(self, tree, seed):
    params = _draw(Shape(8, 3, 1, 2), tree=tree, seed=seed)
    network, subdivision, cells = _cells(params)
    count = bounds.count_cells(network, subdivision, cells)
    functions = set()
    for cell in cells:
      center = cell.corners.mean(axis=0)
      step = 1e-3 * np.abs(cell.corners - center).max()
      towards = center + step * (cell.corners[:2] - center)
      values = relu_network.evaluate(network, np.stack([center, *towards]))[0][:, 0]
      gradient = np.linalg.solve(towards - center, values[1:] - values[0])
      offset = values[0] - gradient @ center
      functions.add(tuple(np.round([*gradient, offset], 4) + 0.0))
    self.assertLen(functions, count.linear)
    self.assertLessEqual(count.linear, count.activation)


class BoundsTest(parameterized.TestCase):
  def test_values_by_hand(self):
    shape = Shape(features=32, tree_depth=2, num_blocks=3, num_inputs=2)
    # D/n = 16: 16^(2*2*3), (16/4)^12, ((16/2)^2 (16/4)^2)^3.
    self.assertAlmostEqual(2 ** bounds.conventional_bound(shape), 16.0**12)
    self.assertAlmostEqual(2 ** bounds.tree_bound(shape), 4.0**12)
    self.assertAlmostEqual(2 ** bounds.intermediate_bound(shape), (8.0**2 * 4.0**2) ** 3)
    self.assertEqual(bounds.conventional_parameters(shape), 3 * 2 * 32 * 32)
    self.assertEqual(bounds.tree_parameters(shape), 3 * (32 * 32 + 16 * 16))

  def test_the_final_bound_is_the_looser_one(self):
    for depth in range(2, 6):
      shape = Shape(128, depth, 2, 2)
      self.assertLess(bounds.tree_bound(shape), bounds.intermediate_bound(shape))
      self.assertLess(bounds.intermediate_bound(shape), bounds.conventional_bound(shape))

  @parameterized.parameters((256, 1), (1024, 4), (64, 2))
  def test_bounds_grow_to_their_peaks_then_fall(self, features, inputs):
    for bound, peak in (
      (bounds.tree_bound, bounds.tree_bound_peak(features, inputs)),
      (bounds.intermediate_bound, bounds.intermediate_bound_peak(features, inputs)),
    ):
      last = int(math.log2(features / inputs))
      values = [bound(Shape(features, depth, 1, inputs)) for depth in range(1, last + 1)]
      for depth, (here, there) in enumerate(itertools.pairwise(values), start=1):
        # A parabola in K: it grows from K to K + 1 where their middle is before the peak.
        self.assertEqual(there > here, depth + 0.5 < peak, (bound.__name__, depth))

  def test_networks_too_narrow_for_the_proposition(self):
    bounds.tree_bound(Shape(64, 5, 2, 2))
    with self.assertRaisesRegex(ValueError, 'features=64.*at least 128'):
      bounds.tree_bound(Shape(64, 6, 2, 2))
    with self.assertRaises(ValueError):
      bounds.conventional_bound(Shape(2, 1, 1, 3))


if __name__ == '__main__':
  absltest.main()
