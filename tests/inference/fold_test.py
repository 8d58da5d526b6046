"""A folded network computes what the network does."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bitnet_jax.inference import fold
from bitnet_jax.models import create_model


def made(name, **sizes):
  model = create_model(name, num_classes=10, batch_norm_epsilon=1e-3, **sizes)
  images = jax.random.normal(jax.random.key(0), (9, 32, 32, 3))
  variables = jax.jit(model.init)(jax.random.key(1), images)
  rng = np.random.default_rng(0)
  # As after training: statistics, scale and bias that are not those of the beginning.
  shaken = jax.tree.map(
    lambda v: v * rng.uniform(0.5, 1.5, v.shape) + rng.uniform(0, 0.1), variables
  )
  return model, jax.tree.map(lambda v: jnp.asarray(v, jnp.float32), shaken), images


class FoldTest(parameterized.TestCase):
  @parameterized.parameters('bitnet', 'wide_resnet', 'plainnet', 'resnet18b', 'bitnet26')
  def test_agrees(self, name):
    small = name in ('bitnet', 'wide_resnet', 'plainnet')
    sizes = {'width': 1, 'tree_depth': 2, 'num_blocks': 2} if small else {}
    model, variables, images = made(name, **sizes)
    want = jax.jit(model.apply)(variables, images)
    folded, folded_variables = fold.fold(model, variables)
    got = jax.jit(folded.apply)(folded_variables, images)
    self.assertGreater(float(jnp.abs(want).max()), 1e-3)
    np.testing.assert_allclose(got, want, atol=1e-4 * float(jnp.abs(want).max()))

  @parameterized.parameters('bitnet26', 'resnet18b')
  def test_nothing_of_batch_norm_is_left(self, name):
    model, variables, images = made(name)
    folded, folded_variables = fold.fold(model, variables)
    text = jax.jit(folded.apply).lower(folded_variables, images).as_text()
    self.assertNotIn('rsqrt', text)
    names = [str(path) for path, _ in jax.tree_util.tree_flatten_with_path(folded_variables)[0]]
    self.assertEqual([name for name in names if 'norm' in name or 'batch_stats' in name], [])
    self.assertEqual(
      set(jax.tree.leaves(jax.tree.map(lambda leaf: leaf.dtype, folded_variables))),
      {np.dtype(np.float32)},
    )

  def test_does_not_train(self):
    model, variables, images = made('bitnet', width=1, tree_depth=1, num_blocks=1)
    folded, folded_variables = fold.fold(model, variables)
    with self.assertRaisesRegex(ValueError, 'a folded network does not train'):
      folded.apply(folded_variables, images, train=True)


if __name__ == '__main__':
  absltest.main()
