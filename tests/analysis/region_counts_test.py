"""The counts that the figure shows are those that the code gives."""

from absl.testing import absltest, parameterized

from bitnet_jax.analysis import region_counts, region_figure
from bitnet_jax.analysis.region_counts import COUNTS, FEATURES, NUM_BLOCKS, NUM_INPUTS
from bitnet_jax.analysis.regions import bounds


class RegionCountsTest(parameterized.TestCase):
  def test_table_is_complete(self):
    self.assertEqual(
      set(COUNTS),
      {(family, depth) for family in region_counts.FAMILIES for depth in region_counts.TREE_DEPTHS},
    )
    for row in COUNTS.values():
      self.assertLen(row, len(region_counts.SEEDS))

  # The quickest ones of a chain, and of trees; in the last the two counts differ.
  @parameterized.parameters(('conventional', 1), ('bitnet', 2), ('bitnet', 5))
  def test_quickest_counts_again(self, family, depth):
    row = COUNTS[family, depth]
    differs = depth == 5
    seeds = [i for i, (linear, patterns) in enumerate(row) if not differs or linear != patterns]
    seed = min(seeds, key=lambda seed: row[seed])
    found = region_counts.count(family, depth, region_counts.SEEDS[seed])
    self.assertEqual((found.linear, found.activation), row[seed])

  def test_blocks_of_depth_one_are_the_same_network(self):
    self.assertEqual(COUNTS['bitnet', 1], COUNTS['conventional', 1])

  def test_no_more_functions_than_patterns(self):
    for row in COUNTS.values():
      for linear, activation in row:
        self.assertLessEqual(linear, activation)

  @parameterized.parameters(*region_counts.TREE_DEPTHS)
  def test_parameters_are_those_of_section_3_3(self, depth):
    def biases(widths):
      return NUM_BLOCKS * sum(widths)

    # The first layer reads n channels, not D, and there are biases and a head.
    rest = FEATURES * (NUM_INPUTS - FEATURES) + FEATURES + 1
    shape = bounds.Shape(FEATURES, depth, NUM_BLOCKS, NUM_INPUTS)
    self.assertEqual(
      region_counts.parameters('conventional', depth),
      bounds.conventional_parameters(shape) + rest + biases([FEATURES] * depth),
    )
    self.assertEqual(
      region_counts.parameters('bitnet', depth),
      bounds.tree_parameters(shape) + rest + biases(FEATURES >> k for k in range(depth)),
    )

  def test_figure_shows_means_and_stated_bounds(self):
    fig = region_figure.draw()
    lines = {line.get_gid(): line for line in fig.axes[1].get_lines() if line.get_gid()}
    means = [sum(seed[0] for seed in COUNTS['bitnet', k]) / 5 for k in region_counts.TREE_DEPTHS]
    self.assertSequenceAlmostEqual(lines['counted/bitnet'].get_ydata(), means)
    # D is at least 2^K n up to K = 5.
    self.assertLen(lines['bound/bound, proposition 3.3'].get_xdata(), 5)
    self.assertLen(lines['bound/bound, corollary 3.2'].get_xdata(), 6)
    self.assertEqual(lines['bound/bound, proposition 3.3'].get_ydata()[1], 8.0**8)


if __name__ == '__main__':
  absltest.main()
