"""A folded network computes what the network does, with fewer operations."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bitnet_jax.inference import fold
from bitnet_jax.models import create_model, layers
from tests.helpers import small_networks


def make(name, **sizes):
  model = create_model(name, num_classes=10, batch_norm_epsilon=1e-3, **sizes)
  model = small_networks.narrow(model, 4)
  images = np.asarray(jax.random.normal(jax.random.key(0), (4, 32, 32, 3)))
  variables = jax.jit(model.init)(jax.random.key(1), images)
  return model, trained(variables), images


def trained(variables):
  """As after training: statistics, scale and bias are not those of the beginning."""
  rng = np.random.default_rng(0)
  changed = jax.tree.map(
    lambda v: v * rng.uniform(0.5, 1.5, v.shape) + rng.uniform(0, 0.1), variables
  )
  return jax.tree.map(lambda v: np.asarray(v, np.float32), changed)


class OddBlock(nn.Module):
  """What nobody told the package of: a stock layer, and a convolution without a ReLU."""

  conv: object
  norm: object

  @nn.compact
  def __call__(self, x, *, train):
    x = self.conv(8, name='plain_conv')(x)
    y = nn.tanh(nn.Dense(8, name='mix')(x))
    y = self.norm(name='odd_norm', relu=False)(
      self.conv(8, strides=2, name='odd_conv')(y), train=train
    )
    return y * jax.nn.sigmoid(y)


class OddNetwork(nn.Module):
  num_classes: int
  conv: object
  norm: object

  @nn.compact
  def __call__(self, x, *, train=False):
    x = OddBlock(self.conv, self.norm, name='block')(x, train=train)
    return nn.Dense(self.num_classes, name='head')(x.mean(axis=(1, 2)))


class FoldTest(parameterized.TestCase):
  def assert_same(self, model, variables, images):
    want = np.asarray(jax.jit(functools.partial(model.apply, train=False))(variables, images))
    folded, weights = fold.fold(model, variables, images.shape[1:], len(images))
    got = jax.jit(folded)(weights, images)
    self.assertGreater(np.abs(want - want.mean(axis=0)).max(), 1e-4)
    np.testing.assert_allclose(got, want, atol=1e-4 * np.abs(want).max())
    return jax.jit(folded).lower(weights, images).as_text(), weights

  @parameterized.parameters('bitnet', 'wide_resnet', 'plainnet', 'resnet18b', 'bitnet26')
  def test_agrees(self, name):
    small = name in ('bitnet', 'wide_resnet', 'plainnet')
    sizes = {'width': 1, 'tree_depth': 2, 'num_blocks': 2} if small else {}
    model, variables, images = make(name, **sizes)
    text, weights = self.assert_same(model, variables, images)
    self.assertNotIn('rsqrt', text)
    self.assertEqual({weight.dtype for weight in weights}, {np.dtype(np.float32)})

  def test_batch_norm_after_convolution_is_folded_away(self):
    model, variables, images = make('bitnet', width=1, tree_depth=2, num_blocks=1)
    text, weights = self.assert_same(model, variables, images)
    # The head's mean alone divides; a bias is added to each convolution and to the logits.
    self.assertNotIn('stablehlo.multiply', text)
    self.assertEqual(text.count('stablehlo.add'), text.count('stablehlo.convolution') + 1 + 1)
    self.assertLen(weights, 2 * text.count('stablehlo.convolution') + 2)

  def test_follows_a_network_that_it_has_not_seen(self):
    conv = functools.partial(layers.Conv)
    norm = functools.partial(layers.GroupedBatchNorm, axis_name='')
    model = OddNetwork(5, conv, norm)
    images = np.asarray(jax.random.normal(jax.random.key(0), (3, 9, 12, 3)))
    variables = trained(jax.jit(model.init)(jax.random.key(1), images))
    self.assert_same(model, variables, images)

  def test_convolution_read_twice_is_computed_once(self):
    class Twice(nn.Module):
      @nn.compact
      def __call__(self, x, *, train):
        del train
        y = layers.Conv(4, name='conv')(x)
        return (y * 2.0 + jnp.flip(y, axis=1) * 3.0).mean(axis=(1, 2))

    model = Twice()
    images = np.asarray(jax.random.normal(jax.random.key(0), (2, 8, 8, 3)))
    variables = jax.device_get(model.init(jax.random.key(1), images, train=False))
    text, _ = self.assert_same(model, variables, images)
    self.assertEqual(text.count('stablehlo.convolution'), 1)


if __name__ == '__main__':
  absltest.main()
