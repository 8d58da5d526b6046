"""Convolution, grouped batch norm and pooling against NumPy, on one device and on several."""

from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bitnet_jax.distributed import devices
from bitnet_jax.models import layers
from bitnet_jax.models.norm import group_layout

FEATURES = 3


def windows(x, size, strides, border):
  """Yields (row, column, window) of padded images, with Torch's floor of the output's size."""
  x = np.pad(x, ((0, 0), (size // 2,) * 2, (size // 2,) * 2, (0, 0)), constant_values=border)
  for row, top in enumerate(range(0, x.shape[1] - size + 1, strides)):
    for column, left in enumerate(range(0, x.shape[2] - size + 1, strides)):
      yield row, column, x[:, top : top + size, left : left + size]


def numpy_conv(x, kernel, strides):
  outputs = {
    (row, column): np.einsum('nijc,ijcd->nd', window, kernel)
    for row, column, window in windows(x, kernel.shape[0], strides, 0)
  }
  height, width = np.array(list(outputs)).max(axis=0) + 1
  return np.stack(
    [[outputs[row, column] for column in range(width)] for row in range(height)], 0
  ).transpose(2, 0, 1, 3)


def numpy_batch_norm(x, upstream, scale, bias):
  """One group: output, gradients of sum(output * upstream), mean and unbiased variance."""
  axes = tuple(range(x.ndim - 1))
  mean, var = x.mean(axes), x.var(axes)
  normal = (x - mean) / np.sqrt(var + 1e-5)
  centered = upstream - upstream.mean(axes) - normal * (upstream * normal).mean(axes)
  return {
    'y': normal * scale + bias,
    'x': scale / np.sqrt(var + 1e-5) * centered,
    'scale': (upstream * normal).sum(axes),
    'bias': upstream.sum(axes),
    'mean': mean,
    'var': x.var(axes, ddof=1),
  }


def numpy_grouped(x, upstream, scale, bias, group):
  """Batch norms apart over consecutive groups: gradients added, statistics averaged."""
  parts = [
    numpy_batch_norm(x[i : i + group], upstream[i : i + group], scale, bias)
    for i in range(0, len(x), group)
  ]
  reduce = {'y': np.concatenate, 'x': np.concatenate, 'scale': sum, 'bias': sum}
  average = lambda values: np.mean(values, axis=0)  # noqa: E731
  return {key: reduce.get(key, average)([part[key] for part in parts]) for key in parts[0]}


class ConvTest(parameterized.TestCase):
  @parameterized.product(kernel_size=(1, 3, 7), strides=(1, 2), shape=((7, 8), (8, 5)))
  def test_padding_is_torchs(self, kernel_size, strides, shape):
    random = np.random.default_rng(kernel_size)
    x = random.normal(size=(2, *shape, 3)).astype(np.float32)
    kernel = random.normal(size=(kernel_size, kernel_size, 3, 4)).astype(np.float32)
    conv = layers.Conv(4, kernel_size=kernel_size, strides=strides)
    got = conv.apply({'params': {'kernel': kernel}}, x)
    np.testing.assert_allclose(got, numpy_conv(x, kernel, strides), atol=2e-5)
    self.assertEqual(got.shape[1:3], tuple(-(-side // strides) for side in shape))


class MaxPoolTest(parameterized.TestCase):
  @parameterized.parameters(((7, 8),), ((8, 5),), ((1, 2),))
  def test_border_never_wins(self, shape):
    """All values are negative: a border of zeros would be the largest of its windows."""
    x = -1 - np.random.default_rng(0).random(size=(2, *shape, 3)).astype(np.float32)
    want = np.empty((2, -(-shape[0] // 2), -(-shape[1] // 2), 3), np.float32)
    for row, column, window in windows(x, 3, 2, -np.inf):
      want[:, row, column] = window.max(axis=(1, 2))
    np.testing.assert_array_equal(layers.max_pool(jnp.asarray(x)), want)


class GroupLayoutTest(parameterized.TestCase):
  @parameterized.parameters(
    # local batch, group, devices -> groups on a device, devices of a group
    (128, 64, 1, (2, 1)), (64, 64, 2, (1, 1)), (32, 64, 4, (1, 2)), (16, 64, 8, (1, 4)),
    (256, 32, 1, (8, 1)), (16, 0, 8, (1, 8)), (16, 0, 1, (1, 1)), (6, 3, 5, (2, 1)),
  )  # fmt: skip
  def test_layout(self, local_batch, group, devices, want):
    self.assertEqual(group_layout(local_batch, group, devices), want)

  @parameterized.parameters(
    (8, 3, 1), (8, 16, 1), (8, 12, 4), (8, 24, 4), (8, 64, 4), (6, 4, 2), (5, 10, 3)
  )
  def test_misfit_is_named(self, local_batch, group, devices):
    message = f'group of {group} does not fit {devices} device.* {local_batch} examples'
    with self.assertRaisesRegex(ValueError, message):
      group_layout(local_batch, group, devices)

  def test_misfit_in_a_network(self):
    norm = layers.GroupedBatchNorm(group_size=3)
    variables = norm.init(jax.random.key(0), jnp.zeros((4, FEATURES)), train=False)
    with self.assertRaisesRegex(ValueError, 'group of 3 does not fit 1 device'):
      norm.apply(variables, jnp.zeros((4, FEATURES)), train=True, mutable=['batch_stats'])


class GroupedBatchNormTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    random = np.random.default_rng(0)
    # Each example has a mean and a deviation of its own, or groups could be mixed up unseen.
    level = np.arange(16).reshape(16, 1, 1, 1)
    x = random.normal(size=(16, 2, 3, FEATURES)) * (1 + level / 4) + level
    self.x = x.astype(np.float32)
    self.upstream = random.normal(size=self.x.shape).astype(np.float32)
    self.scale, self.bias, self.mean = random.normal(size=(3, FEATURES)).astype(np.float32)
    self.var = random.uniform(0.5, 2, FEATURES).astype(np.float32)
    self.variables = {
      'params': {'scale': self.scale, 'bias': self.bias},
      'batch_stats': {'mean': self.mean, 'var': self.var},
    }

  def make_pass(self, norm):
    """A device's part of a training pass: output, gradients, running statistics."""

    def run(variables, x, upstream):
      def loss(params, x):
        y, updated = norm.apply(
          {**variables, 'params': params}, x, train=True, mutable=['batch_stats']
        )
        return (y * upstream).sum(), (y, updated['batch_stats'])

      (_, (y, updated)), (params, x) = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)(
        variables['params'], x
      )
      return {'y': y, 'x': x}, params, updated

    return run

  def reference(self, group):
    want = numpy_grouped(*map(np.float64, (self.x, self.upstream, self.scale, self.bias)), group)
    for key, old in (('mean', self.mean), ('var', self.var)):
      want[key] = 0.9 * old + 0.1 * want[key]
    return want

  def assert_result(self, got, group):
    want = self.reference(group)
    self.assertEqual(set(got), set(want))
    for key, value in want.items():
      error = np.abs(np.asarray(got[key]) - value).max()
      self.assertLess(error, 1e-5 * np.abs(value).max(), key)

  @parameterized.parameters((0, 16), (16, 16), (8, 8), (4, 4), (2, 2), (1, 1))
  def test_groups_on_a_device_are_batch_norms_apart(self, group, want):
    run = jax.jit(self.make_pass(layers.GroupedBatchNorm(group_size=group, relu=False)))
    examples, params, updated = run(self.variables, self.x, self.upstream)
    self.assert_result({**examples, **params, **updated}, want)

  @parameterized.parameters(
    # devices, group, group as counted
    (2, 0, 16), (2, 16, 16), (2, 8, 8), (2, 4, 4), (4, 0, 16), (4, 8, 8), (4, 4, 4), (4, 2, 2),
    (8, 0, 16), (8, 8, 8), (8, 4, 4), (8, 2, 2), (8, 1, 1),
  )  # fmt: skip
  def test_groups_on_devices_are_those_of_one_device(self, number, group, want):
    """The group is consecutive examples of the global batch, whatever the number of devices."""
    self.enterContext(mock.patch.object(jax, 'local_device_count', return_value=number))
    norm = layers.GroupedBatchNorm(group_size=group, relu=False, axis_name=devices.AXIS)
    run = self.make_pass(norm)

    def step(*arguments):
      examples, params, updated = run(*arguments)
      return examples, devices.sum_over_devices(params), devices.mean_over_devices(updated)

    split = lambda x: x.reshape(number, 16 // number, *x.shape[1:])  # noqa: E731
    variables = jax.tree.map(lambda leaf: np.stack([leaf] * number), self.variables)
    examples, params, updated = devices.map_devices(step)(
      variables, split(self.x), split(self.upstream)
    )
    examples = {key: np.concatenate(np.asarray(value)) for key, value in examples.items()}
    for leaf in jax.tree.leaves((params, updated)):
      np.testing.assert_array_equal(leaf[0], leaf[-1])
    first = jax.tree.map(lambda leaf: leaf[0], {**params, **updated})
    self.assert_result({**examples, **first}, want)

  def test_running_statistics_by_hand(self):
    """Values 1, 3, 5, 7: mean 4, squared deviations 9 + 1 + 1 + 9, over 3 as Torch keeps it."""
    norm = layers.GroupedBatchNorm(momentum=0.75)
    x = jnp.array([1.0, 3.0, 5.0, 7.0])[:, None]
    variables = norm.init(jax.random.key(0), x, train=False)
    np.testing.assert_array_equal(variables['batch_stats']['mean'], [0])
    np.testing.assert_array_equal(variables['batch_stats']['var'], [1])
    for mean, var in ((0.25 * 4, 0.75 + 0.25 * 20 / 3), (1.75, 0.75**2 + 0.4375 * 20 / 3)):
      _, updated = norm.apply(variables, x, train=True, mutable=['batch_stats'])
      np.testing.assert_allclose(updated['batch_stats']['mean'], [mean], rtol=1e-6)
      np.testing.assert_allclose(updated['batch_stats']['var'], [var], rtol=1e-6)
      variables = {**variables, **updated}

  def test_evaluation_keeps_the_running_statistics(self):
    norm = layers.GroupedBatchNorm(group_size=3, relu=False)  # 3 does not divide 16: unused here
    y, updated = norm.apply(self.variables, self.x, train=False, mutable=['batch_stats'])
    want = (self.x - self.mean) / np.sqrt(self.var + 1e-5) * self.scale + self.bias
    np.testing.assert_allclose(y, want, atol=1e-5 * np.abs(want).max())
    kept = updated.get('batch_stats', self.variables['batch_stats'])
    np.testing.assert_array_equal(kept['mean'], self.mean)
    np.testing.assert_array_equal(kept['var'], self.var)

  @parameterized.parameters(True, False)
  def test_relu_follows(self, train):
    results = []
    for relu in (True, False):
      norm = layers.GroupedBatchNorm(relu=relu)
      y, _ = norm.apply(self.variables, self.x, train=train, mutable=['batch_stats'])
      results.append(np.asarray(y))
    self.assertLess(results[1].min(), 0)
    np.testing.assert_array_equal(results[0], np.maximum(results[1], 0))

  def test_epsilon_bounds_a_constant_channel(self):
    norm = layers.GroupedBatchNorm(epsilon=0.25)
    x = jnp.array([2.0, 2.0, 2.0, 2.0])[:, None]
    variables = norm.init(jax.random.key(0), x, train=False)
    y = norm.apply(variables, jnp.array([[1.0]]), train=False)
    np.testing.assert_allclose(y, [[1 / np.sqrt(1.25)]], rtol=1e-6)
    y, _ = norm.apply(variables, x, train=True, mutable=['batch_stats'])
    np.testing.assert_array_equal(y, 0)

  def test_large_mean_leaves_the_variance_exact(self):
    """E[x^2] - E[x]^2 would lose a variance of 1 beside a mean of 3000 in float32."""
    norm = layers.GroupedBatchNorm(relu=False)
    x = np.float32(3000 + np.random.default_rng(0).normal(size=(256, 1)))
    variables = norm.init(jax.random.key(0), x, train=False)
    y, _ = norm.apply(variables, x, train=True, mutable=['batch_stats'])
    self.assertAlmostEqual(float(np.std(y)), 1, delta=1e-3)


if __name__ == '__main__':
  absltest.main()
