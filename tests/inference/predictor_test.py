"""A network in use computes what its module does, whichever way it is run."""

import functools
import os
import subprocess
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bitnet_jax import onednn
from bitnet_jax.inference import predictor
from bitnet_jax.models import create_model, layers
from bitnet_jax.models.registry import MODELS
from bitnet_jax.onednn import ops

# Width, tree depth and blocks: the second network has channels that fill no register.
SIZES = {
  'bitnet': ((4, 6, 1), (3, 4, 1)),
  'wide_resnet': ((2, 2, 2),),
  'plainnet': ((1, 3, 1),),
}
CASES = [(name, sizes) for name in MODELS for sizes in SIZES.get(name, ((0, 0, 0),))]
TOLERANCE = {'float32': 1e-5, 'bfloat16': 2e-2}


def make(name, sizes, dtype='float32', kernels='onednn'):
  named = dict(zip(('width', 'tree_depth', 'num_blocks'), sizes, strict=True))
  return create_model(
    name, num_classes=10, width_factor=1.3, dtype=jnp.dtype(dtype), kernels=kernels, **named
  )


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


class InferenceTest(parameterized.TestCase):
  def assert_near(self, got, want, dtype='float32'):
    self.assertEqual((got.shape, got.dtype), (want.shape, np.float32))
    self.assertLess(np.abs(got - want).max(), TOLERANCE[dtype] * np.abs(want).max())

  @parameterized.parameters(*CASES)
  @absltest.skipIf(onednn.unavailable(), onednn.unavailable())
  def test_agrees(self, name, sizes):
    images = noise(3)
    plain = make(name, sizes, kernels='xla')
    variables = weights(plain, images)
    want = applied(plain, variables, images)
    self.assertGreater(np.abs(want - want.mean(axis=0)).max(), 1e-3)
    for dtype in TOLERANCE:
      if not ops.runs_conv(dtype):
        continue
      run = predictor.make_predictor(make(name, sizes, dtype), variables, images.shape[1:], 3)
      self.assertIsInstance(run, onednn.Program)
      for first, last in ((0, 1), (0, 3), (1, 3)):
        self.assert_near(run(images[first:last]), want[first:last], dtype)

  @absltest.skipIf(onednn.unavailable(), onednn.unavailable())
  def test_each_network_has_its_own_weights(self):
    images, model = noise(2), make('bitnet', (1, 2, 1))
    runs = []
    for seed in (1, 2):
      variables = weights(model, images, seed)
      runs.append((predictor.make_predictor(model, variables, images.shape[1:], 2), variables))
    plain = make('bitnet', (1, 2, 1), kernels='xla')
    for run, variables in runs:
      self.assert_near(run(images), applied(plain, variables, images))

  @parameterized.parameters('bitnet', 'wide_resnet')
  def test_xla(self, name):
    images, model = noise(5), make(name, (1, 1, 1), kernels='xla')
    variables = weights(model, images)
    run = predictor.make_predictor(model, variables, images.shape[1:], 5)
    self.assertNotIsInstance(run, onednn.Program)
    want = applied(model, variables, images)
    for count in (1, 4, 5):
      self.assert_near(run(images[:count]), want[:count])

  def test_a_network_that_is_not_known_here(self):
    class Odd(layers.Conv):
      @nn.compact
      def __call__(self, x):
        return jnp.tanh(super().__call__(x))

    kernels = 'xla' if onednn.unavailable() else 'onednn'
    model = make('wide_resnet', (1, 2, 1), kernels=kernels)
    model = model.clone(conv=functools.partial(Odd, **model.conv.keywords))
    images = noise(2)
    variables = weights(model, images)
    run = predictor.make_predictor(model, variables, images.shape[1:], 2)
    self.assertNotIsInstance(run, onednn.Program)
    self.assert_near(run(images), applied(model, variables, images))

  @absltest.skipIf(onednn.unavailable(), onednn.unavailable())
  def test_without_avx512(self):
    """Other kernels, with other blocks; a type without any goes to XLA."""
    code = (
      'import sys\n'
      f'sys.path.insert(0, {os.path.dirname(__file__)!r})\n'
      'import numpy as np, predictor_test as t\n'
      'images = t.noise(2, 16, 16)\n'
      'for dtype in ("float32", "bfloat16"):\n'
      '  plain = t.make("bitnet", (3, 4, 1), kernels="xla")\n'
      '  variables = t.weights(plain, images)\n'
      '  model = t.make("bitnet", (3, 4, 1), dtype)\n'
      '  run = t.predictor.make_predictor(model, variables, images.shape[1:], 2)\n'
      '  want = t.applied(plain, variables, images)\n'
      '  near = np.abs(run(images) - want).max() < t.TOLERANCE[dtype] * np.abs(want).max()\n'
      '  print(type(run).__name__, near)\n'
    )
    done = subprocess.run(
      [sys.executable, '-c', code],
      env={**os.environ, 'ONEDNN_MAX_CPU_ISA': 'AVX2'},
      capture_output=True,
      text=True,
      check=True,
    )
    self.assertEqual(done.stdout.splitlines(), ['Program True', 'function True'])


if __name__ == '__main__':
  absltest.main()
