"""Counts against sums written out by hand, and against a larger head built for real."""

import jax
import jax.numpy as jnp
from absl.testing import absltest, parameterized
from jax import lax

from bitnet_jax import models
from bitnet_jax.analysis.audit import counts, networks
from bitnet_jax.analysis.audit.networks import Convention, Network


def _equations(function, *shapes):
  arguments = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
  return list(counts.equations(jax.make_jaxpr(function)(*arguments).jaxpr))


def _convolve(x, kernel, strides=1, padding=1, groups=1):
  return lax.conv_general_dilated(
    x,
    kernel,
    (strides, strides),
    ((padding, padding), (padding, padding)),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=groups,
  )


def _bitnet_by_hand(width, tree_depth, num_blocks, classes):
  """Weights and multiply-adds of a CIFAR BitNet, level by level, as Table 1 has it."""
  weights, cost, norm, channels = 27 * 16, 27 * 16 * 32**2, 2 * 16, 16
  for features, side in ((16 * width, 32), (32 * width, 16), (64 * width, 8)):
    for _ in range(num_blocks):
      for level in range(tree_depth):
        filters = features // 2**level
        weights += 9 * channels * filters
        cost += 9 * channels * filters * side**2
        norm += 2 * filters
        channels = filters // 2
      channels = features
  head = channels * classes
  return weights + norm + head + classes, cost + head


class MultiplyAddsTest(parameterized.TestCase):
  @parameterized.parameters((1, 1, 5), (2, 1, 3), (1, 0, 3), (2, 0, 2))
  def test_convolution_counts_every_tap_on_padding_too(self, strides, padding, side):
    convolve = lambda x, kernel: _convolve(x, kernel, strides, padding)  # noqa: E731
    (eqn,) = _equations(convolve, (2, 5, 5, 7), (3, 3, 7, 11))
    self.assertEqual(counts.multiply_adds(eqn), 2 * side * side * 11 * 9 * 7)

  def test_filters_of_a_group_see_its_channels_alone(self):
    convolve = lambda x, kernel: _convolve(x, kernel, groups=3)  # noqa: E731
    (eqn,) = _equations(convolve, (1, 4, 4, 6), (3, 3, 2, 9))
    self.assertEqual(counts.multiply_adds(eqn), 16 * 9 * 9 * 2)

  def test_matrix_product(self):
    (eqn,) = _equations(lambda x, w: x @ w, (3, 64), (64, 10))
    self.assertEqual(counts.multiply_adds(eqn), 3 * 64 * 10)

  def test_nothing_else_counts(self):
    eqns = _equations(lambda x: jnp.exp(x).sum() + x.mean(), (4, 4))
    self.assertGreater(len(eqns), 2)
    self.assertEqual(sum(map(counts.multiply_adds, eqns)), 0)

  def test_what_functions_within_compute_counts(self):
    product = jax.jit(lambda x, w: jax.nn.relu(x @ w))
    eqns = _equations(lambda x, w: product(x, w) + product(x, w), (1, 8), (8, 8))
    self.assertEqual(sum(map(counts.multiply_adds, eqns)), 2 * 64)

  def test_loops_are_refused(self):
    def loop(x):
      return lax.scan(lambda carry, _: (carry @ carry, None), x, length=3)[0]

    with self.assertRaisesRegex(ValueError, 'of a scan'):
      _equations(loop, (2, 2))


class TraceTest(parameterized.TestCase):
  @parameterized.parameters((1, 1, 1), (1, 3, 2), (3, 4, 1), (2, 5, 1))
  def test_bitnet_as_written_out_by_hand(self, *sizes):
    network = networks.bitnet(*sizes)
    for classes in (10, 100):
      found = [
        counts.count(network, quantity, Convention(classes))
        for quantity in ('parameters', 'multiply_adds')
      ]
      self.assertEqual(tuple(found), _bitnet_by_hand(*sizes, classes))

  @parameterized.parameters('wide_resnet', 'bitnet')
  def test_larger_head_is_that_of_more_classes(self, name):
    model = models.create_model(name, num_classes=100, width=1, tree_depth=2, num_blocks=1)
    images = jnp.zeros((1, 32, 32, 3))
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), images))['params']
    built = sum(leaf.size for leaf in jax.tree.leaves(params))
    network = Network(name, 1, 2, 1)
    self.assertEqual(counts.count(network, 'parameters', Convention(100)), built)

  def test_larger_projections_cost_nine_times_as_much(self):
    network = networks.wide_resnet(2, 2, 1)
    plain, wide = counts.trace(network), counts.trace(network, 3)
    # Projections 16 -> 32 at 32x32, 32 -> 64 at 16x16, 64 -> 128 at 8x8.
    weights = (16 * 32, 32 * 64, 64 * 128)
    self.assertEqual(wide.parameters - plain.parameters, 8 * sum(weights))
    cost = sum(w * side**2 for w, side in zip(weights, (32, 16, 8), strict=True))
    self.assertEqual(wide.convolutions - plain.convolutions, 8 * cost)
    rest = {'parameters': 0, 'convolutions': 0}
    self.assertEqual(wide._replace(**rest), plain._replace(**rest))

  def test_batch_norm_is_counted_apart_from_head_bias(self):
    found = counts.trace(networks.bitnet(1, 1, 1))
    self.assertEqual(found.batch_norm, 2 * (16 + 16 + 32 + 64))
    self.assertEqual(found.head_per_class, 64 + 1)
    self.assertEqual(found.classifier_per_class, 64)

  def test_feature_maps_halve_as_tables_1_and_3_say(self):
    self.assertEqual(counts.trace(networks.bitnet(1, 1, 1)).output_sizes, (32, 16, 8))
    self.assertEqual(counts.trace(networks.BITNET26).output_sizes, (112, 56, 28, 14, 7))

  def test_xla_counts_the_same_less_the_taps_on_padding(self):
    network = networks.bitnet(1, 2, 1)
    model = counts.create(network)
    images = jnp.zeros((1, 32, 32, 3))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images))
    lowered = jax.jit(lambda v, x: model.apply(v, x)).lower(variables, images)
    share = lowered.cost_analysis()['flops'] / 2 / counts.trace(network).convolutions
    self.assertBetween(share, 0.85, 0.999)


if __name__ == '__main__':
  absltest.main()
