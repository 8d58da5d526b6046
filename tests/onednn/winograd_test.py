"""Winograd's convolution against XLA's in float64, and where it is taken."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bitnet_jax import onednn
from bitnet_jax.models import build, kernels
from bitnet_jax.models.registry import create_model
from bitnet_jax.onednn import custom_call, winograd


def arrays(*shapes):
  rng = np.random.default_rng(sum(map(sum, shapes)))
  return [rng.normal(size=shape) for shape in shapes]


@absltest.skipIf(onednn.unavailable(), onednn.unavailable())
class WinogradTest(parameterized.TestCase):
  @parameterized.parameters(
    ((2, 8, 8), 16, 16),
    ((1, 4, 4), 3, 5),
    ((3, 5, 7), 8, 24),  # Filled up to 8x8.
    ((2, 13, 4), 17, 8),
    ((1, 1, 2), 4, 4),
    ((2, 32, 32), 16, 8),
    ((11, 32, 32), 4, 6),  # Two parts of six, of which one image is zeros.
    ((3, 61, 64), 4, 6),  # An image to a part.
  )
  def test_value_and_gradients(self, pixels, c, features):
    x, kernel, dy = arrays((*pixels, c), (3, 3, c, features), (*pixels, features))

    def run(function, dtype):
      operands = [jnp.asarray(array, dtype) for array in (x, kernel, dy)]
      y, pull = jax.vjp(function, *operands[:2])
      return y, *pull(operands[2])

    got = run(jax.jit(winograd.conv), jnp.float32)
    with jax.enable_x64(True):
      want = run(lambda x, kernel: kernels.convolve(x, kernel, 1), jnp.float64)
    for one, other in zip(got, want, strict=True):
      self.assertEqual(one.dtype, jnp.float32)
      np.testing.assert_allclose(one, other, atol=3e-5 * np.abs(other).max())

  def test_rounding_is_that_of_float32(self):
    """At the size of a real layer: 1e-5 of the largest output, a bias nowhere."""
    x, kernel = arrays((8, 32, 32, 64), (3, 3, 64, 64))
    got = jax.jit(winograd.conv)(jnp.asarray(x, jnp.float32), jnp.asarray(kernel, jnp.float32))
    with jax.enable_x64(True):
      want = kernels.convolve(jnp.asarray(x), jnp.asarray(kernel), 1)
    error = (np.asarray(got, np.float64) - np.asarray(want)) / np.abs(want).max()
    self.assertLess(np.abs(error).max(), 2e-5)
    self.assertLess(np.sqrt(np.square(error).mean()), 2e-6)
    self.assertLess(np.abs(error.mean()), 2e-8)

  @parameterized.parameters('ambk,abkn->ambn', 'ambk,abnk->ambn', 'akbm,akbn->abmn')
  def test_products_of_matrices(self, orders):
    length = {'a': 6, 'b': 6, 'm': 10, 'k': 8, 'n': 12}
    shapes = [[length[axis] for axis in order] for order in orders.split('->')[0].split(',')]
    a, b = (jnp.asarray(array, jnp.float32) for array in arrays(*shapes))
    got = jax.jit(lambda a, b: custom_call.matmul(a, b, orders))(a, b)
    np.testing.assert_allclose(got, jnp.einsum(orders, a, b), atol=1e-5)

  def test_batches_of_examples_do_not_mix(self):
    x, kernel = (jnp.asarray(array, jnp.float32) for array in arrays((4, 8, 8, 8), (3, 3, 8, 8)))
    whole = winograd.conv(x, kernel)
    changed = winograd.conv(x.at[1].set(7.0), kernel)
    np.testing.assert_array_equal(whole[0], changed[0])
    np.testing.assert_array_equal(whole[2:], changed[2:])


class PartsTest(parameterized.TestCase):
  @parameterized.parameters((64, 32, 8, 8), (61, 32, 8, 8), (131, 8, 2, 66), (1, 224, 1, 1))
  def test_few_parts_whatever_the_batch(self, n, side, parts, examples):
    x = jax.ShapeDtypeStruct((n, side, side, 5), jnp.float32)
    got = jax.eval_shape(winograd._divide, x).shape
    self.assertEqual(got, (parts, examples, side, side, 5))


class ChoiceTest(parameterized.TestCase):
  @parameterized.parameters(
    ((64, 32, 32, 64), 3, 64, 1, True),
    ((64, 8, 8, 256), 3, 256, 1, True),
    ((64, 14, 14, 256), 3, 256, 1, True),
    ((64, 32, 32, 16), 3, 16, 1, False),  # The maps cost more than is saved.
    ((64, 32, 32, 64), 3, 64, 2, False),
    ((64, 32, 32, 64), 1, 64, 1, False),
    ((64, 9, 9, 64), 3, 64, 1, False),  # 144 pixels for 81.
    ((64, 8, 8, 64), 3, 64, 1, False),  # Over before it pays.
  )
  def test_pays(self, shape, size, features, strides, want):
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    kernel = (size, size, shape[-1], features)
    self.assertEqual(winograd.pays(x, kernel, strides), want)
    self.assertFalse(winograd.pays(x.update(dtype=jnp.bfloat16), kernel, strides))

  @parameterized.parameters(('float32', 3), ('bfloat16', 0))
  def test_used_where_it_pays(self, dtype, want):
    """In the second layer of each stage; the first ones have a stride, or 16 channels."""
    model = create_model(
      'wide_resnet',
      num_classes=2,
      width=4,
      tree_depth=2,
      num_blocks=1,
      dtype=dtype,
      kernels=build.choose_kernels('winograd', 'float32'),
    )
    images = jnp.zeros((8, 32, 32, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    text = jax.jit(model.apply).lower(variables, images).as_text()
    self.assertEqual(text.count('plan = "matmul'), want)


if __name__ == '__main__':
  absltest.main()
