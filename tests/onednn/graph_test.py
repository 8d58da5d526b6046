"""Operations that go into the convolution before them, and those that must not."""

import numpy as np
from absl.testing import absltest

from bitnet_jax.onednn import graph

SHAPE = (4, 4, 2)


def conv(x):
  kernel = np.arange(8, dtype=np.float32).reshape(1, 1, 2, 4)[..., :2] + 1
  return graph.Conv(shape=SHAPE, inputs=[x], kernel=kernel, bias=np.array([1.0, 2.0]), strides=1)


def affine(x, scale, shift, relu=False):
  scale, shift = np.asarray(scale, np.float32), np.asarray(shift, np.float32)
  return graph.Affine(shape=SHAPE, inputs=[x], scale=scale, shift=shift, relu=relu)


def simplified(*nodes):
  features = nodes[-1]
  features.users += 1
  network = graph.Network(nodes=list(nodes), features=features, kernel=np.eye(2), bias=np.zeros(2))
  return graph.simplify(network)


class SimplifyTest(absltest.TestCase):
  def test_a_norm_goes_into_the_convolution(self):
    image = graph.Image(shape=SHAPE)
    a = conv(image)
    b = affine(a, [2, 3], [0, 0])
    c = affine(b, [1, 1], [5, -5])
    got = simplified(image, a, b, c, affine(c, [1, 1], [0, 0], relu=True))
    self.assertEqual(got.nodes, [image, a])
    self.assertIs(got.features, a)
    self.assertTrue(a.relu)
    np.testing.assert_array_equal(a.bias, [2 * 1 + 5, 3 * 2 - 5])
    np.testing.assert_array_equal(a.kernel[0, 0], [[1 * 2, 2 * 3], [5 * 2, 6 * 3]])

  def test_not_where_something_else_reads_the_convolution(self):
    image = graph.Image(shape=SHAPE)
    a = conv(image)
    b = affine(a, [2, 2], [0, 0], relu=True)
    c = conv(b)
    got = simplified(image, a, b, c, graph.Sum(shape=SHAPE, inputs=[a, c]))
    self.assertEqual(got.nodes, [image, a, b, c])
    self.assertEqual(c.inputs, [b, a])
    self.assertFalse(a.relu)

  def test_after_a_sum_only_a_relu(self):
    for scale, kept in ((1, 3), (2, 4)):
      image = graph.Image(shape=SHAPE)
      a, b = conv(image), None
      b = conv(a)
      total = graph.Sum(shape=SHAPE, inputs=[b, a])
      got = simplified(image, a, b, total, affine(total, [scale] * 2, [0, 0], relu=True))
      self.assertLen(got.nodes, kept)
      self.assertEqual(b.relu, scale == 1)

  def test_after_a_relu_nothing(self):
    image = graph.Image(shape=SHAPE)
    a = conv(image)
    b = affine(a, [1, 1], [0, 0], relu=True)
    c = affine(b, [2, 2], [1, 1], relu=True)
    d = affine(c, [3, 3], [1, 1])
    self.assertEqual(simplified(image, a, b, c, d).nodes, [image, a, c, d])

  def test_a_sum_without_a_convolution(self):
    image = graph.Image(shape=SHAPE)
    a = conv(image)
    b = affine(a, [2, 2], [0, 0], relu=True)
    c = affine(b, [2, 2], [0, 0])
    with self.assertRaisesRegex(graph.Unsupported, 'no convolution'):
      simplified(image, a, b, c, graph.Sum(shape=SHAPE, inputs=[b, c]))


if __name__ == '__main__':
  absltest.main()
