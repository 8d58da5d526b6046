"""The written-out gradient of grouped batch norm with ReLU against autodiff, in float64."""

from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bitnet_jax.models import norm


class Double:
  """`jax.numpy` in which float32 means float64."""

  float32 = jnp.float64

  def __getattr__(self, name):
    return getattr(jnp, name)


def by_autodiff(x, scale, bias, epsilon, relu):
  mean = x.mean(axis=1, keepdims=True)
  var = jnp.square(x - mean).mean(axis=1, keepdims=True)
  y = (x - mean) / jnp.sqrt(var + epsilon) * scale + bias
  return (jnp.maximum(y, 0) if relu else y), mean, var


class NormalizeTest(parameterized.TestCase):
  @parameterized.product(groups=(1, 3), relu=(True, False), offset=(0.0, 50.0))
  def test_value_and_gradient(self, groups, relu, offset):
    self.enterContext(jax.enable_x64(True))
    self.enterContext(mock.patch.object(norm, 'jnp', Double()))
    rng = np.random.default_rng(0)
    x = rng.normal(size=(groups, 35, 5)) * 2 + offset
    scale, bias = rng.normal(size=5), rng.normal(size=5)
    weight = rng.normal(size=x.shape)

    def loss(function, x, scale, bias):
      y, mean, var = function(x, scale, bias)
      return (jnp.sin(y) * weight).sum(), (y, mean, var)

    def ours(x, scale, bias):
      return norm.normalize(x, scale, bias, 1e-5, relu, lambda value: value)

    def reference(x, scale, bias):
      return by_autodiff(x, scale, bias, 1e-5, relu)

    results = [
      jax.jit(jax.grad(loss, argnums=(1, 2, 3), has_aux=True), static_argnums=0)(
        function, x, scale, bias
      )
      for function in (ours, reference)
    ]
    for got, want in zip(*map(jax.tree.leaves, results), strict=True):
      self.assertEqual(got.dtype, np.float64)
      np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)

  def test_bfloat16_in_and_out_with_float32_statistics(self):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(1, 4096, 2)), jnp.bfloat16)
    ones, zeros = jnp.ones(2), jnp.zeros(2)
    y, mean, var = norm.normalize(x, ones, zeros, 1e-5, False, lambda value: value)
    self.assertEqual((y.dtype, mean.dtype, var.dtype), (jnp.bfloat16, jnp.float32, jnp.float32))
    exact = np.asarray(x, np.float64)
    np.testing.assert_allclose(mean[0], exact.mean(axis=1), atol=1e-6)
    np.testing.assert_allclose(var[0], exact.var(axis=1), rtol=1e-5)


if __name__ == '__main__':
  absltest.main()
