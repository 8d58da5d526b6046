"""The tree against a reference that knows nothing of fusion, and the blocks' shapes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from jax import lax

from bitnet_jax.analysis.regions import dense
from bitnet_jax.models import blocks, layers

CONV = layers.Conv
NORM = layers.GroupedBatchNorm


def conv_norm_relu(x, kernel, scale, bias, strides):
  x = lax.conv_general_dilated(
    x, kernel, (strides, strides), ((1, 1), (1, 1)), dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )
  mean = x.mean((0, 1, 2))
  var = ((x - mean) ** 2).mean((0, 1, 2))
  return jnp.maximum((x - mean) / jnp.sqrt(var + 1e-5) * scale + bias, 0)


def two_convolution_tree(x, params, tree_depth, strides):
  """Equations 2 and 3 as they are printed: f_left and f_right apart at every level."""
  rights = []
  for level in range(1, tree_depth + 1):
    kernel = params[f'level{level}_conv']['kernel']
    norm = params[f'level{level}_norm']
    half = kernel.shape[-1] // 2
    step = strides if level == 1 else 1
    right = conv_norm_relu(x, kernel[..., :half], norm['scale'][:half], norm['bias'][:half], step)
    left = conv_norm_relu(x, kernel[..., half:], norm['scale'][half:], norm['bias'][half:], step)
    rights.append(right)
    x = left
  return jnp.concatenate([*rights, x], -1)


class BitBlockTest(parameterized.TestCase):
  def make(self, features=16, tree_depth=3, strides=1, size=8, channels=6):
    block = blocks.BitBlock(features, tree_depth, conv=CONV, norm=NORM, strides=strides)
    x = jax.random.normal(jax.random.key(1), (4, size, size, channels))
    variables = block.init(jax.random.key(0), x, train=True)
    # Not the identity of the initial scale and bias, or a wrong split of them would pass.
    params = jax.tree.map(
      lambda p: p + 0.3 * jax.random.normal(jax.random.key(p.size), p.shape), variables['params']
    )
    return block, params, variables['batch_stats'], x

  @parameterized.product(tree_depth=(1, 2, 3, 4), strides=(1, 2), size=(7, 8))
  def test_fused_equals_two_convolutions(self, tree_depth, strides, size):
    block, params, stats, x = self.make(tree_depth=tree_depth, strides=strides, size=size)
    weight = jax.random.normal(jax.random.key(2), (16,))

    def fused(params, x):
      variables = {'params': params, 'batch_stats': stats}
      y, _ = block.apply(variables, x, train=True, mutable=['batch_stats'])
      return (jnp.sin(y) * weight).sum(), y

    def reference(params, x):
      y = two_convolution_tree(x, params, tree_depth, strides)
      return (jnp.sin(y) * weight).sum(), y

    got, y = jax.jit(jax.grad(fused, argnums=(0, 1), has_aux=True))(params, x)
    want, y_reference = jax.jit(jax.grad(reference, argnums=(0, 1), has_aux=True))(params, x)
    np.testing.assert_allclose(y, y_reference, atol=1e-5, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
      np.testing.assert_allclose(a, b, atol=1e-5 * np.abs(b).max(), rtol=1e-5)

  def test_depth_one_is_conv_norm_relu(self):
    block, params, stats, x = self.make(tree_depth=1)
    y, _ = block.apply(
      {'params': params, 'batch_stats': stats}, x, train=True, mutable=['batch_stats']
    )
    norm = params['level1_norm']
    want = conv_norm_relu(x, params['level1_conv']['kernel'], norm['scale'], norm['bias'], 1)
    np.testing.assert_allclose(y, want, atol=1e-5)

  def test_branches_halve_and_sum_to_the_features(self):
    _, params, _, _ = self.make(features=32, tree_depth=4)
    kernels = [params[f'level{level}_conv']['kernel'].shape for level in range(1, 5)]
    self.assertEqual([shape[-1] for shape in kernels], [32, 16, 8, 4])
    self.assertEqual([shape[-2] for shape in kernels], [6, 16, 8, 4])
    rights = [shape[-1] // 2 for shape in kernels]
    self.assertEqual(sum(rights) + rights[-1], 32)

  @parameterized.parameters((7, 4), (8, 4), (9, 5))
  def test_stride_acts_once(self, size, halved):
    block, params, stats, x = self.make(tree_depth=3, strides=2, size=size)
    y = block.apply({'params': params, 'batch_stats': stats}, x, train=False)
    self.assertEqual(y.shape, (4, halved, halved, 16))

  @parameterized.parameters((20, 3, 'use 16 or 24'), (4, 3, 'use 8 or 8'), (16, 0, 'tree_depth=0'))
  def test_indivisible_width_raises(self, features, tree_depth, remedy):
    with self.assertRaisesRegex(ValueError, f'features={features}: not divisible.*{remedy}'):
      self.make(features=features, tree_depth=tree_depth)


class ConvenBlockTest(parameterized.TestCase):
  def test_is_a_stack(self):
    block = blocks.ConvenBlock(8, 3, conv=CONV, norm=NORM, strides=2)
    x = jax.random.normal(jax.random.key(1), (4, 7, 7, 5))
    variables = block.init(jax.random.key(0), x, train=True)
    y, _ = block.apply(variables, x, train=True, mutable=['batch_stats'])
    for layer in (1, 2, 3):
      params = variables['params'][f'layer{layer}_conv']
      x = conv_norm_relu(x, params['kernel'], 1.0, 0.0, 2 if layer == 1 else 1)
    np.testing.assert_allclose(y, x, atol=1e-5)

  @parameterized.parameters((8, 1, False), (8, 2, True), (16, 1, True))
  def test_projection_where_the_shape_changes(self, features, strides, projects):
    block = blocks.PreActivationBlock(features, 2, conv=CONV, norm=NORM, strides=strides)
    x = jnp.ones((2, 8, 8, 8))
    params = block.init(jax.random.key(0), x, train=True)['params']
    self.assertEqual('projection' in params, projects)

  def test_identity_shortcut_adds_the_input(self):
    block = blocks.PreActivationBlock(8, 2, conv=CONV, norm=NORM)
    plain = blocks.PreActivationBlock(8, 2, conv=CONV, norm=NORM, shortcut=False)
    x = jax.random.normal(jax.random.key(1), (2, 8, 8, 8))
    variables = block.init(jax.random.key(0), x, train=True)
    difference = block.apply(variables, x, train=False) - plain.apply(variables, x, train=False)
    np.testing.assert_allclose(difference, x, atol=1e-5)


class DenseTest(parameterized.TestCase):
  def test_tree(self):
    block = dense.DenseBitBlock(features=8, tree_depth=3)
    x = jax.random.normal(jax.random.key(1), (5, 3))
    variables = block.init(jax.random.key(0), x)
    self.assertEqual(
      [variables['params'][f'level{level}_dense']['kernel'].shape for level in (1, 2, 3)],
      [(3, 8), (4, 4), (2, 2)],
    )
    outputs, hidden = [], x
    for level in (1, 2, 3):
      layer = variables['params'][f'level{level}_dense']
      hidden = np.maximum(hidden @ layer['kernel'] + layer['bias'], 0)
      half = hidden.shape[-1] // 2
      right, hidden = hidden[:, :half], hidden[:, half:]
      outputs.append(right)
    want = np.concatenate([*outputs, hidden], -1)
    np.testing.assert_allclose(block.apply(variables, x), want, atol=1e-5)

  @parameterized.parameters(*[(2, depth, 16) for depth in (1, 2, 3, 4)])
  def test_weights_are_four_thirds_of_l_d_squared(self, num_blocks, tree_depth, features):
    """Proposition 3.3, whose count is of square weight matrices: the input is D wide too."""
    network = dense.DenseNetwork(dense.DenseBitBlock, features, tree_depth, num_blocks, 1)
    x = jnp.zeros((1, features))
    params = jax.eval_shape(lambda: network.init(jax.random.key(0), x))['params']
    weights = sum(
      layer['kernel'].size
      for name, block in params.items()
      if name != 'head'
      for layer in block.values()
    )
    self.assertEqual(weights, 4 / 3 * num_blocks * (1 - 4.0**-tree_depth) * features**2)

  def test_conventional(self):
    network = dense.DenseNetwork(dense.DenseConvenBlock, 8, 3, 2, 4)
    params = jax.eval_shape(lambda: network.init(jax.random.key(0), jnp.zeros((1, 8))))['params']
    kernels = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim == 2]
    self.assertEqual(sum(kernel.size for kernel in kernels), 2 * 3 * 8 * 8 + 8 * 4)


class InitTest(parameterized.TestCase):
  @parameterized.parameters(('fan_out', 2 / (9 * 128)), ('fan_in', 2 / (9 * 64)))
  def test_variance_of_the_fused_convolution(self, mode, variance):
    """Level 1 of a 256-wide tree: left and right have 128 filters each."""
    conv = functools.partial(CONV, init_mode=mode)
    block = blocks.BitBlock(256, 2, conv=conv, norm=NORM)
    params = block.init(jax.random.key(0), jnp.ones((1, 4, 4, 64)), train=False)['params']
    kernel = np.asarray(params['level1_conv']['kernel'])
    self.assertAlmostEqual(kernel.var() / variance, 1, delta=0.02)
    # Untruncated: of 147,456 draws some lie beyond 3.5 deviations, none would if cut at 2.
    self.assertGreater(np.abs(kernel).max(), 3.5 * np.sqrt(variance))

  def test_variance_of_a_plain_convolution(self):
    variables = CONV(128, kernel_size=7).init(jax.random.key(0), jnp.ones((1, 8, 8, 16)))
    self.assertAlmostEqual(variables['params']['kernel'].var() / (2 / (49 * 128)), 1, delta=0.02)

  def test_head_is_uniform_within_its_bound(self):
    params = layers.Head(100).init(jax.random.key(0), jnp.ones((1, 2, 2, 64)))['params']
    bound = 1 / 8
    self.assertLess(np.abs(params['kernel']).max(), bound)
    self.assertGreater(np.abs(params['kernel']).max(), 0.99 * bound)
    self.assertAlmostEqual(params['kernel'].var() / (bound**2 / 3), 1, delta=0.05)
    np.testing.assert_array_equal(params['bias'], 0)


if __name__ == '__main__':
  absltest.main()
