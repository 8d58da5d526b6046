"""The blocks are drawn as the modules are built."""

import functools

import jax
import jax.numpy as jnp
from absl.testing import absltest, parameterized
from matplotlib import patches

from bitnet_jax.analysis import figure1
from bitnet_jax.analysis.audit import block_structure
from bitnet_jax.analysis.audit.block_structure import INPUT, Channels


def _bars(panel):
  """(left, level, width) of every bar."""
  return {
    (bar.get_x(), round(bar.get_y() + bar.get_height() / 2), bar.get_width())
    for bar in panel.patches
    if isinstance(bar, patches.Rectangle)
  }


class StructureTest(parameterized.TestCase):
  def test_tree_hands_on_the_second_half_of_each_level(self):
    found = block_structure.of_block('bitnet', 256, 3)
    self.assertEqual([layer.features for layer in found.convolutions], [256, 128, 64])
    self.assertEqual(
      [layer.inputs for layer in found.convolutions],
      [(Channels(INPUT, 0, 256),), (Channels(1, 128, 256),), (Channels(2, 64, 128),)],
    )
    self.assertEqual(found.output, (Channels(1, 0, 128), Channels(2, 0, 64), Channels(3, 0, 64)))
    self.assertEqual(
      sum(layer.parameters for layer in found.convolutions), 9 * (256**2 + 128**2 + 64**2)
    )

  def test_conventional_block_hands_on_all(self):
    found = block_structure.of_block('conventional', 256, 3)
    self.assertEqual(found.convolutions[2].inputs, (Channels(2, 0, 256),))
    self.assertEqual(found.output, (Channels(3, 0, 256),))
    self.assertEqual(sum(layer.parameters for layer in found.convolutions), 3 * 9 * 256**2)

  def test_ranges_are_followed_through_splits_and_joins(self):
    def function(x, half):
      left, middle, right = jnp.split(x, [1, 4], axis=-1)
      joined = jnp.concatenate([right, jax.nn.relu(left), middle], axis=-1)
      return jnp.split(joined, 2, axis=-1)[half] * 2

    image = jax.ShapeDtypeStruct((1, 2, 2, 6), jnp.float32)
    for half, expected in (
      (0, (Channels(INPUT, 4, 6), Channels(INPUT, 0, 1))),
      (1, (Channels(INPUT, 1, 4),)),
    ):
      jaxpr = jax.make_jaxpr(functools.partial(function, half=half))(image).jaxpr
      self.assertEqual(block_structure.trace(jaxpr).output, expected)

  def test_what_mixes_channels_is_refused(self):
    image = jax.ShapeDtypeStruct((1, 2, 2, 6), jnp.float32)
    jaxpr = jax.make_jaxpr(lambda x: x + x.sum(axis=-1, keepdims=True))(image).jaxpr
    with self.assertRaisesRegex(ValueError, 'cannot follow the channels through reduce_sum'):
      block_structure.trace(jaxpr)


class FigureTest(absltest.TestCase):
  def test_bars_are_as_wide_as_layers_over_their_input(self):
    conventional, tree = figure1.draw(256, 3).axes
    self.assertEqual(_bars(conventional), {(0, level, 256) for level in range(5)})
    self.assertEqual(
      _bars(tree),
      {(0, 0, 256), (0, 1, 128), (128, 1, 128), (128, 2, 64), (192, 2, 64), (192, 3, 64)}
      | {(0, 4, 128), (128, 4, 64), (192, 4, 64)},
    )

  def test_colors_tell_what_the_next_layer_reads(self):
    _, tree = figure1.draw(256, 3).axes
    colors = {
      (bar.get_x(), round(bar.get_y() + bar.get_height() / 2)): bar.get_facecolor()
      for bar in tree.patches
    }
    self.assertEqual(colors[0, 1], colors[192, 3])
    self.assertEqual(colors[128, 1], colors[192, 2])
    self.assertNotEqual(colors[0, 1], colors[128, 1])


if __name__ == '__main__':
  absltest.main()
