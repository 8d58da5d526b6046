"""Every network's parameters, depth and pieces against the paper's tables."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bitnet_jax import models

# PAPER.md's tables 2, 5, 6: (name, width, tree depth, blocks, depth, parameters, 10 classes).
CIFAR = (
  ('wide_resnet', 4, 2, 6, 38, 8_949_210),
  ('bitnet', 4, 3, 4, 38, 3_677_274),
  ('bitnet', 4, 4, 3, 38, 2_696_266),
  ('bitnet', 4, 2, 6, 38, 5_420_890),
  ('bitnet', 4, 6, 2, 38, 1_674_154),
  ('wide_resnet', 10, 2, 2, 14, 17_116_634),
  ('bitnet', 10, 2, 2, 14, 9_598_234),
  ('bitnet', 10, 4, 1, 14, 3_925_714),
  ('wide_resnet', 10, 2, 3, 20, 26_797_914),
  ('bitnet', 10, 2, 3, 20, 15_649_594),
  ('bitnet', 10, 3, 2, 20, 10_204_154),
  ('wide_resnet', 12, 2, 4, 26, 52_517_850),
  ('bitnet', 12, 2, 4, 26, 31_238_874),
  ('bitnet', 12, 4, 2, 26, 14_903_226),
  ('plainnet', 4, 2, 6, 38, 8_907_226),
  ('bitnet', 4, 1, 2, 8, 1_156_826),
  ('bitnet', 4, 2, 2, 14, 1_544_794),
  ('bitnet', 4, 4, 2, 26, 1_666_426),
  ('bitnet', 4, 1, 4, 14, 2_706_906),
  ('bitnet', 4, 2, 4, 26, 3_482_842),
  ('bitnet', 4, 4, 4, 50, 3_726_106),
  ('bitnet', 4, 5, 4, 62, 3_738_426),
  ('bitnet', 4, 6, 4, 74, 3_741_562),
  ('bitnet', 12, 1, 2, 8, 10_326_234),
  ('bitnet', 12, 2, 2, 14, 13_812_570),
  ('bitnet', 12, 3, 2, 20, 14_684_826),
  ('bitnet', 12, 5, 2, 32, 14_957_994),
  ('bitnet', 12, 6, 2, 38, 14_971_770),
)
# Tables 3 and 4: (name, width factor, depth, parameters with batch norm, 1000 classes).
IMAGENET = (
  ('bitnet26', 1.0, 26, 12_798_920),
  ('bitnet34', 1.0, 34, 23_008_104),
  ('resnet18b', 1.0, 18, 11_689_512),
  ('resnet34b', 1.0, 34, 21_797_672),
)


def shapes(model, size):
  return jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, size, size, 3))))


def count(params):
  return sum(leaf.size for leaf in jax.tree.leaves(params))


def batch_norm_count(params):
  paths = jax.tree_util.tree_leaves_with_path(params)
  return sum(leaf.size for path, leaf in paths if 'norm' in path[-2].key)


class RegistryTest(parameterized.TestCase):
  @parameterized.parameters(*CIFAR)
  def test_cifar_counts(self, name, width, tree_depth, num_blocks, depth, parameters):
    sizes = {'width': width, 'tree_depth': tree_depth, 'num_blocks': num_blocks}
    model = models.create_model(name, num_classes=10, **sizes)
    self.assertEqual(count(shapes(model, 32)['params']), parameters)
    self.assertEqual(model.depth, depth)

  @parameterized.parameters(*IMAGENET)
  def test_imagenet_counts(self, name, width_factor, depth, parameters):
    model = models.create_model(name, num_classes=1000, width_factor=width_factor)
    self.assertEqual(count(shapes(model, 224)['params']), parameters)
    self.assertEqual(model.depth, depth)

  @parameterized.parameters(('bitnet26', 12_789_160), ('bitnet34', 22_993_576))
  def test_table_3_leaves_batch_norm_out(self, name, parameters):
    params = shapes(models.create_model(name, num_classes=1000), 224)['params']
    self.assertEqual(count(params) - batch_norm_count(params), parameters)

  @parameterized.parameters(
    ('resnet18b', 1.5, 25.9), ('resnet18b', 2.0, 45.6), ('resnet34b', 1.5, 48.6)
  )
  def test_widths_of_table_4(self, name, width_factor, millions):
    model = models.create_model(name, num_classes=1000, width_factor=width_factor)
    self.assertEqual(round(count(shapes(model, 224)['params']) / 1e6, 1), millions)

  def test_every_registered_model_is_in_a_table(self):
    self.assertEqual({row[0] for row in CIFAR + IMAGENET}, set(models.MODELS))

  def test_every_model_names_its_first_convolution_and_its_classifier(self):
    for name in models.MODELS:
      model = models.create_model(name, num_classes=7, width=1, tree_depth=1, num_blocks=1)
      params = shapes(model, 32)['params']
      self.assertEqual(params['stem_conv']['kernel'].shape[2], 3, name)
      self.assertEqual(params['head']['kernel'].shape[-1], 7, name)

  def test_unknown_name(self):
    with self.assertRaisesRegex(ValueError, 'bitnet99.*use one of bitnet, '):
      models.create_model('bitnet99', num_classes=10)


class ParametersTest(parameterized.TestCase):
  @parameterized.parameters('bitnet', 'wide_resnet', 'plainnet', 'bitnet26', 'resnet18b')
  def test_every_parameter_gets_a_gradient_and_statistics_move_in_training_alone(self, name):
    model = models.create_model(name, num_classes=5, width=1, tree_depth=2, num_blocks=1)
    images = jax.random.normal(jax.random.key(1), (4, 32, 32, 3))
    variables = jax.jit(model.init)(jax.random.key(0, impl='rbg'), images)

    @jax.jit
    def loss(params):
      state = {'params': params, 'batch_stats': variables['batch_stats']}
      logits, updated = model.apply(state, images, train=True, mutable=['batch_stats'])
      return -jax.nn.log_softmax(logits)[:, 0].mean(), updated['batch_stats']

    grads, moved = jax.grad(loss, has_aux=True)(variables['params'])
    for path, grad in jax.tree_util.tree_leaves_with_path(grads):
      self.assertGreater(float(jnp.abs(grad).max()), 0, jax.tree_util.keystr(path))
    before = jax.tree.leaves(variables['batch_stats'])
    for old, new in zip(before, jax.tree.leaves(moved), strict=True):
      self.assertTrue(np.any(old != new))
    _, still = model.apply(variables, images, train=False, mutable=['batch_stats'])
    for old, new in zip(before, jax.tree.leaves(still.get('batch_stats', {})), strict=False):
      np.testing.assert_array_equal(old, new)

  def test_bfloat16_keeps_parameters_statistics_and_logits_in_float32(self):
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

  def test_bfloat16_computes_its_convolutions_in_bfloat16(self):
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
