"""A network in use computes what its module does, whichever way it is run."""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bitnet_jax import onednn
from bitnet_jax.checkpoints import pretrained
from bitnet_jax.config import defaults
from bitnet_jax.config.networks import NETWORKS
from bitnet_jax.inference import predictor
from bitnet_jax.models import build, create_model
from tests.helpers import small_networks

# Width, tree depth and blocks: the second network has channels that fill no register.
SIZES = {
  'bitnet': ((4, 6, 1), (3, 4, 1)),
  'wide_resnet': ((2, 2, 2),),
  'plainnet': ((1, 3, 1),),
}
CASES = [(name, sizes) for name in NETWORKS for sizes in SIZES.get(name, ((0, 0, 0),))]
TOLERANCE = {'float32': 1e-4, 'bfloat16': 2e-2}
KERNELS = [('xla', 'float32'), ('xla', 'bfloat16')]
if not onednn.unavailable():
  KERNELS += [('onednn', 'float32'), ('winograd', 'float32'), ('onednn', 'bfloat16')]


def make(name, sizes, dtype='float32'):
  named = dict(zip(('width', 'tree_depth', 'num_blocks'), sizes, strict=True))
  model = create_model(name, num_classes=10, width_factor=1.3, dtype=jnp.dtype(dtype), **named)
  return small_networks.shorten(small_networks.narrow(model, 4))


def weights(model, images, seed=0):
  """As after training: nothing is one or zero."""
  shapes = jax.eval_shape(model.init, jax.random.key(0), images)
  rng = np.random.default_rng(seed)

  def draw(path, leaf):
    name = path[-1].key
    if name == 'kernel':
      return rng.standard_normal(leaf.shape, np.float32) * np.sqrt(2 / np.prod(leaf.shape[:-1]))
    if name in ('scale', 'var'):
      return rng.uniform(0.5, 1.2, leaf.shape)
    return rng.normal(size=leaf.shape) * 0.1

  drawn = jax.tree_util.tree_map_with_path(draw, shapes)
  return jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), drawn)


def noise(count, height=33, width=38):
  return np.random.default_rng(0).normal(size=(count, height, width, 3)).astype(np.float32)


def applied(model, variables, images):
  run = jax.jit(functools.partial(model.apply, train=False)).lower(variables, images)
  quickly = {'xla_backend_optimization_level': 0}
  return np.asarray(run.compile(quickly)(variables, images))


def predict(name, sizes, dtype, kernels, variables, images, batch_size):
  kernels = build.choose_kernels(kernels, dtype)
  model = make(name, sizes, dtype)
  return predictor.make_predictor(model, variables, images.shape[1:], batch_size, kernels)


class InferenceTest(parameterized.TestCase):
  def assert_near(self, got, want, dtype='float32'):
    self.assertEqual((got.shape, got.dtype), (want.shape, np.float32))
    self.assertLess(np.abs(got - want).max(), TOLERANCE[dtype] * np.abs(want).max())

  @parameterized.parameters(*CASES)
  def test_agrees(self, name, sizes):
    images = noise(3)
    plain = make(name, sizes)
    variables = weights(plain, images)
    want = applied(plain, variables, images)
    self.assertGreater(np.abs(want - want.mean(axis=0)).max(), 1e-3)
    for kernels, dtype in KERNELS:
      run = predict(name, sizes, dtype, kernels, variables, images, 3)
      for first, last in ((0, 1), (0, 3), (1, 3)):
        self.assert_near(run(images[first:last]), want[first:last], dtype)

  def test_each_network_has_its_own_weights(self):
    images, model = noise(2), make('bitnet', (1, 2, 1))
    runs = []
    for seed in (1, 2):
      variables = weights(model, images, seed)
      runs.append((predictor.make_predictor(model, variables, images.shape[1:], 2), variables))
    for run, variables in runs:
      self.assert_near(run(images), applied(model, variables, images))

  @parameterized.parameters((1, 'auto', 'xla'), (7, 'auto', 'xla'), (1, 'onednn', 'onednn'))
  def test_few_images_use_xla_unless_configured(self, batch_size, asked, used):
    if used != 'xla' and onednn.unavailable():
      self.skipTest(onednn.unavailable())
    config = defaults.default_config()
    config.model.width, config.model.tree_depth, config.model.kernels = 1, 2, asked
    model, images = make('bitnet', (1, 2, 2)), noise(1)
    names = tuple('abcdefghij')
    run = pretrained.Trained(config, names, 1, weights(model, images), images.shape[1:])
    with mock.patch.object(predictor, 'make_predictor') as made:
      predictor.from_run(run, batch_size)
    self.assertEqual(made.call_args.args[-1].name, used)


if __name__ == '__main__':
  absltest.main()
