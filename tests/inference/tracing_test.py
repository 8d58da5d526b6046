"""What a network is made of, as read from its jaxpr, and what is refused."""

import collections
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bitnet_jax.inference import tracing
from bitnet_jax.models import create_model, layers
from bitnet_jax.onednn import graph

SIZES = {'width': 1, 'tree_depth': 2, 'num_blocks': 1}


def traced(name, change=lambda model: model, **sizes):
  model = change(create_model(name, num_classes=10, **sizes))
  shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
  variables = jax.tree.map(lambda leaf: np.ones(leaf.shape, leaf.dtype), shapes)
  return tracing.trace(model, variables, (32, 32, 3))


def census(network):
  return dict(collections.Counter(type(node).__name__ for node in network.nodes[1:]))


class Odd(layers.Conv):
  """A convolution with something done to its input."""

  change: object = None

  @nn.compact
  def __call__(self, x):
    return super().__call__(self.change(x))


class TracingTest(parameterized.TestCase):
  @parameterized.parameters(
    ('bitnet', {'Conv': 7, 'Part': 6, 'Join': 3}),
    ('wide_resnet', {'Conv': 1 + 6 + 2, 'Affine': 4}),
    ('plainnet', {'Conv': 7}),
    ('bitnet26', {'Conv': 25, 'Part': 32, 'Join': 8, 'MaxPool': 1}),
    ('resnet18b', {'Conv': 1 + 16 + 3, 'MaxPool': 1}),
  )
  def test_operations(self, name, want):
    """Every batch norm is in a convolution, but for those that follow an addition."""
    got = census(traced(name, **SIZES))
    if name == 'wide_resnet':  # The first norm goes into the stem, which nothing else reads here.
      self.assertEqual(got, {**want, 'Affine': got['Affine']})
      self.assertLessEqual(got['Affine'], 4)
    else:
      self.assertEqual(got, want)

  def test_residuals(self):
    network = traced('resnet18b')
    sums = [node for node in network.nodes if len(node.inputs) > 1]
    self.assertLen(sums, 8)
    self.assertTrue(all(node.relu for node in sums))

  def test_the_type_makes_no_difference(self):
    plain, half = (traced('bitnet', dtype=dtype, **SIZES) for dtype in (jnp.float32, jnp.bfloat16))
    for one, other in zip(graph.leaves(plain.nodes), graph.leaves(half.nodes), strict=True):
      if isinstance(one, graph.Conv):
        np.testing.assert_array_equal(one.kernel, other.kernel)

  @parameterized.parameters(
    (jnp.tanh, 'tanh'),
    (lambda x: x * x, 'product'),
    (lambda x: jnp.maximum(x, 1.0), 'no ReLU'),
    (lambda x: jnp.concatenate([x, x], axis=1), 'anything but channels'),
    (lambda x: x + np.ones((x.shape[2], 1), np.float32), 'shape'),
    (lambda x: x / 2, 'no mean'),
    (lambda x: x.sum(axis=3, keepdims=True), 'positions'),
    (lambda x: nn.max_pool(x, (2, 3)), 'max pooling'),
    (lambda x: jax.lax.fori_loop(0, 4, lambda _, y: y + 1, x), 'scan'),
    (jax.checkpoint(lambda x: x + 1), 'the operation (remat|checkpoint)'),
  )
  def test_refuses(self, change, message):
    def odd(model):
      return model.clone(conv=functools.partial(Odd, change=change))

    with self.assertRaisesRegex(graph.Unsupported, message):
      traced('plainnet', odd, **SIZES)

  @parameterized.parameters(
    (lambda mean, kernel: jnp.dot(mean, kernel) / 2, 'after the classifier'),
    (
      lambda mean, kernel: jnp.dot(jnp.dot(mean, kernel), np.eye(10, dtype=np.float32)),
      'after the classifier',
    ),
    (lambda mean, kernel: jnp.dot(mean + 1, kernel), 'what was pooled'),
    (lambda mean, kernel: jnp.dot(nn.relu(mean), kernel), 'what was pooled'),
    (lambda mean, kernel: jnp.dot(mean, kernel) + jnp.dot(mean, kernel), 'different shapes'),
  )
  def test_refuses_other_heads(self, change, message):
    class OddHead(layers.Head):
      @nn.compact
      def __call__(self, x):
        kernel = self.parameter('kernel', layers.head_init, (x.shape[-1], self.num_classes))
        return change(x.mean(axis=(1, 2)), kernel)

    with self.assertRaisesRegex(graph.Unsupported, message):
      traced('plainnet', lambda model: model.clone(head=OddHead), **SIZES)

  def test_refuses_other_convolutions(self):
    class Dilated(layers.Conv):
      @nn.compact
      def __call__(self, x):
        return nn.Conv(self.features, (3, 3), kernel_dilation=2, use_bias=False)(x)

    with self.assertRaisesRegex(graph.Unsupported, 'a convolution with'):
      traced('plainnet', lambda model: model.clone(conv=Dilated), **SIZES)


if __name__ == '__main__':
  absltest.main()
