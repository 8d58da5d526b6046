"""Every network's parameters, depth and pieces against the paper's tables."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bitnet_jax import models
from bitnet_jax.analysis.audit import paper
from bitnet_jax.config.networks import NETWORKS
from tests.helpers import small_networks

PARAMETERS = [entry for entry in paper.GOLDEN if entry.quantity == 'parameters' and entry.unit == 1]


def shapes(model, size):
  return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, size, size, 3))))


def count(params):
  return sum(leaf.size for leaf in jax.tree.leaves(params))


def batch_norm_count(params):
  paths = jax.tree_util.tree_leaves_with_path(params)
  return sum(leaf.size for path, leaf in paths if 'norm' in path[-2].key)


class RegistryTest(parameterized.TestCase):
  @parameterized.parameters(*((entry,) for entry in PARAMETERS))
  def test_counts_of_the_golden_table(self, entry):
    network, convention = entry.network, entry.convention
    if convention.projection != 1:
      self.skipTest('no network has such projections; the audit counts them')
    sizes = {name: getattr(network, name) for name in NETWORKS[network.name].sizes}
    model = models.create_model(network.name, num_classes=convention.classes, **sizes)
    params = shapes(model, network.image_size)['params']
    left_out = 0 if convention.batch_norm else batch_norm_count(params)
    self.assertEqual(count(params) - left_out, int(entry.digits))

  def test_depth_is_that_of_the_golden_table(self):
    for entry in paper.GOLDEN:
      if entry.quantity == 'depth':
        sizes = {size: getattr(entry.network, size) for size in NETWORKS[entry.network.name].sizes}
        model = models.create_model(entry.network.name, num_classes=10, **sizes)
        self.assertEqual(model.depth, int(entry.digits), entry.network)

  @parameterized.parameters(
    ('resnet18b', 1.5, 25.9), ('resnet18b', 2.0, 45.6), ('resnet34b', 1.5, 48.6)
  )
  def test_widths_of_table_4(self, name, width_factor, millions):
    model = models.create_model(name, num_classes=1000, width_factor=width_factor)
    self.assertEqual(round(count(shapes(model, 224)['params']) / 1e6, 1), millions)

  def test_every_network_has_a_golden_count(self):
    self.assertEqual({entry.network.name for entry in PARAMETERS}, set(NETWORKS))

  def test_models_name_first_and_last_layer(self):
    for name in NETWORKS:
      model = models.create_model(name, num_classes=7, width=1, tree_depth=1, num_blocks=1)
      params = shapes(model, 32)['params']
      self.assertEqual(params['stem_conv']['kernel'].shape[2], 3, name)
      self.assertEqual(params['head']['kernel'].shape[-1], 7, name)

  def test_unknown_name(self):
    with self.assertRaisesRegex(ValueError, 'bitnet99.*use one of bitnet, '):
      models.create_model('bitnet99', num_classes=10)


class ParametersTest(parameterized.TestCase):
  @parameterized.parameters('bitnet', 'wide_resnet', 'plainnet', 'bitnet26', 'resnet18b')
  def test_gradients_everywhere_and_moving_statistics(self, name):
    model = models.create_model(name, num_classes=5, width=1, tree_depth=2, num_blocks=1)
    model = small_networks.narrow(model, 4)
    images = jax.random.normal(jax.random.key(1), (4, 32, 32, 3))
    variables = jax.jit(model.init)(jax.random.key(0, impl='rbg'), images)

    @jax.jit
    def loss(params):
      state = {'params': params, 'batch_stats': variables['batch_stats']}
      logits, updated = model.apply(state, images, train=True, mutable=['batch_stats'])
      return -jax.nn.log_softmax(logits)[:, 0].mean(), updated['batch_stats']

    grads, updated = jax.grad(loss, has_aux=True)(variables['params'])
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
      self.assertGreater(float(jnp.abs(grad).max()), 0, jax.tree_util.keystr(path))
    before = jax.tree.leaves(variables['batch_stats'])
    for old, new in zip(before, jax.tree.leaves(updated), strict=True):
      self.assertTrue(np.any(old != new))
    _, still = model.apply(variables, images, train=False, mutable=['batch_stats'])
    for old, new in zip(before, jax.tree.leaves(still.get('batch_stats', {})), strict=False):
      np.testing.assert_array_equal(old, new)

  def test_bfloat16_keeps_state_and_logits_in_float32(self):
    model = models.create_model(
      'bitnet', num_classes=5, width=1, tree_depth=2, num_blocks=1, dtype=jnp.bfloat16
    )
    images = jnp.ones((4, 8, 8, 3))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images))
    logits, updated = jax.eval_shape(
      lambda v: model.apply(v, images, train=True, mutable=['batch_stats']), variables
    )
    for leaf in jax.tree.leaves((variables, logits, updated)):
      self.assertEqual(leaf.dtype, jnp.float32)

  def test_bfloat16_convolutions_are_in_bfloat16(self):
    model = models.create_model(
      'bitnet', num_classes=5, width=1, tree_depth=2, num_blocks=1, dtype=jnp.bfloat16
    )
    images = jnp.ones((4, 8, 8, 3))
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images))
    text = str(jax.make_jaxpr(lambda v: model.apply(v, images))(variables))
    convolutions = [line for line in text.splitlines() if 'conv_general_dilated[' in line]
    self.assertLen(convolutions, 1 + 3 * 2)
    for line in convolutions:
      self.assertIn('bf16', line)


if __name__ == '__main__':
  absltest.main()
