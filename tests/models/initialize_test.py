"""A network begins with the numbers of `model.init`, though no layer is run."""

import functools
from unittest import mock

import flax.errors
import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bitnet_jax import models
from bitnet_jax.config.networks import NETWORKS
from bitnet_jax.models import initialize, norm
from tests.helpers import small_networks

SIDE = 32


def create(name, **settings):
  sizes = {'width': 1, 'tree_depth': 2, 'num_blocks': 2}
  model = models.create_model(name, num_classes=10, **sizes, **settings)
  return small_networks.shorten(small_networks.narrow(model, 8))


@functools.partial(jax.jit, static_argnums=(0, 1))
def flax_init(model, seed):
  """As a network was initialized before; the forward pass it runs is not computed."""
  return model.init(jax.random.key(seed, impl='rbg'), jnp.zeros((1, SIDE, SIDE, 3)))


class InitializeTest(parameterized.TestCase):
  def assert_same(self, model, seed):
    got, want = initialize.initialize(model, seed, (SIDE, SIDE, 3)), flax_init(model, seed)
    self.assertEqual(jax.tree.structure(got), jax.tree.structure(want))
    for (path, a), b in zip(
      jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(want), strict=True
    ):
      self.assertIsInstance(a, np.ndarray)
      self.assertEqual(a.dtype, b.dtype)
      np.testing.assert_array_equal(a, b, jax.tree_util.keystr(path))

  @parameterized.parameters(*NETWORKS)
  def test_every_network(self, name):
    self.assert_same(create(name), 0)

  @parameterized.parameters(
    ('bitnet', 2**31 - 1, {}),
    ('wide_resnet', 3, {'conv_init': 'fan_in', 'norm_scale_init': 'uniform'}),
  )
  def test_other_seeds_and_recipes(self, name, seed, settings):
    self.assert_same(create(name, **settings), seed)

  def test_shapes(self):
    model = create('bitnet')
    got, want = initialize.shapes(model, (SIDE, SIDE, 3)), flax_init(model, 0)
    self.assertEqual(
      jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), got),
      jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), want),
    )

  def test_one_program_whatever_the_seed(self):
    lowered = []
    real = initialize._draw
    with mock.patch.object(initialize, '_draw', lambda *args: lowered.append(args) or real(*args)):
      for seed in (0, 1):
        initialize.initialize(create('bitnet'), seed, (SIDE, SIDE, 3))
    kinds = [(kind[1], count) for kind, count in zip(*lowered[0][:2], strict=True)]
    self.assertEqual([type(call[2]) for call in lowered], [type(lowered[0][2])] * 2)
    self.assertIsInstance(lowered[0][2], jax.core.Tracer)  # The seed is no part of the program.
    self.assertLess(len(kinds), sum(count for _, count in kinds))


class TraceTest(absltest.TestCase):
  def test_equal_layers_are_traced_once(self):
    """A step's loss and its gradient trace each kind of layer once, however many there are."""
    images = jnp.zeros((4, 16, 16, 3))
    counts = []
    for blocks in (2, 4):
      model = models.create_model(
        'bitnet', num_classes=10, width=2, tree_depth=2, num_blocks=blocks
      )
      variables = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape), initialize.shapes(model, (16, 16, 3))
      )

      def loss(params, model=model, variables=variables):
        logits, _ = model.apply(
          {**variables, 'params': params}, images, train=True, mutable=['batch_stats']
        )
        return logits.sum()

      jax.clear_caches()
      with mock.patch.object(norm, 'group_layout', wraps=norm.group_layout) as traced:
        jax.make_jaxpr(jax.grad(loss))(variables['params'])
      counts.append(traced.call_count)
    self.assertEqual(counts[0], counts[1])
    self.assertEqual(counts[0], 3 * 2)  # Two levels in each stage; the stem is like one of them.

  def test_another_shape_is_refused(self):
    model = create('bitnet')
    variables = initialize.initialize(model, 0, (SIDE, SIDE, 3))
    variables['params']['stem_conv']['kernel'] = np.zeros((3, 3, 3, 8), np.float32)
    with self.assertRaisesRegex(flax.errors.ScopeParamShapeError, r'stem_conv.*\(3, 3, 3, 8\)'):
      model.apply(variables, np.zeros((1, SIDE, SIDE, 3), np.float32))


if __name__ == '__main__':
  absltest.main()
