"""oneDNN's convolution and batch norm against XLA's own, in float64."""

import concurrent.futures
import functools
import os

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized
from jax import lax

from bitnet_jax import onednn
from bitnet_jax.analysis.audit import counts
from bitnet_jax.models import build, create_model, norm
from bitnet_jax.onednn import custom_call, ops
from tests.helpers.processes import environment, run_program

TOLERANCE = {'float32': 1e-5, 'bfloat16': 2e-2}


def double(function, *arrays):
  """Result and gradients, for cotangents of ones times a ramp, of XLA's function in float64."""
  with jax.enable_x64(True):
    arrays = [jnp.asarray(np.asarray(a, np.float64)) for a in arrays]
    y, pull = jax.vjp(jax.jit(function), *arrays)
    return y, pull


def xla_conv(strides, x, kernel):
  pad = kernel.shape[0] // 2
  return lax.conv_general_dilated(
    x, kernel, (strides, strides), ((pad, pad),) * 2, dimension_numbers=('NHWC', 'HWIO', 'NHWC')
  )


def xla_norm(relu, x, scale, bias):
  """Written down anew, with autodiff's gradient."""
  mean = x.mean(axis=(1, 2), keepdims=True)
  var = jnp.square(x - mean).mean(axis=(1, 2), keepdims=True)
  y = (x - mean) / jnp.sqrt(var + 1e-5) * scale + bias
  return jnp.maximum(y, 0) if relu else y


@absltest.skipIf(onednn.unavailable(), onednn.unavailable())
class OnednnOpsTest(parameterized.TestCase):
  def skip_unless_fast(self, dtype):
    if not ops.runs_conv(dtype):
      self.skipTest(f'the processor has no kernels for {dtype}')

  def assert_near(self, got, want, dtype):
    got, want = np.asarray(got, np.float64), np.asarray(want)
    self.assertEqual(got.shape, want.shape)
    self.assertLess(np.abs(got - want).max() / np.abs(want).max(), TOLERANCE[dtype])

  @parameterized.product(
    shape=((2, 8, 8, 16, 32), (3, 7, 9, 3, 5), (2, 5, 5, 24, 2), (1, 1, 1, 8, 8)),
    size=(1, 3, 7),
    strides=(1, 2),
    dtype=('float32', 'bfloat16'),
  )
  def test_conv(self, shape, size, strides, dtype):
    self.skip_unless_fast(dtype)
    n, height, width, c, features = shape
    rng = np.random.default_rng(size + strides)
    x = jnp.asarray(rng.normal(size=(n, height, width, c)), dtype)
    kernel = jnp.asarray(rng.normal(size=(size, size, c, features)), dtype).astype(jnp.float32)
    y, pull = jax.vjp(jax.jit(lambda x, k: ops.conv(x, k, strides)), x, kernel)
    want, want_pull = double(functools.partial(xla_conv, strides), x, kernel)
    self.assertEqual(y.dtype, jnp.dtype(dtype))
    self.assert_near(y, want, dtype)
    dy = jnp.asarray(rng.normal(size=y.shape), dtype)
    dx, dkernel = pull(dy)
    with jax.enable_x64(True):
      want_dx, want_dkernel = want_pull(jnp.asarray(np.asarray(dy, np.float64)))
    self.assertEqual(dkernel.dtype, jnp.float32)
    self.assert_near(dx, want_dx, dtype)
    self.assert_near(dkernel, want_dkernel, 'float32' if dtype == 'float32' else dtype)

  @parameterized.product(
    shape=((1, 4, 25, 16), (3, 2, 9, 32), (2, 1, 64, 48)),
    relu=(True, False),
    dtype=('float32', 'bfloat16'),
  )
  def test_norm(self, shape, relu, dtype):
    self.skip_unless_fast(dtype)
    rng = np.random.default_rng(shape[0])
    x = jnp.asarray(rng.normal(0.5, 2.0, size=shape), dtype)
    scale, bias = (jnp.asarray(rng.normal(size=shape[-1]), jnp.float32) for _ in range(2))
    dy = jnp.asarray(rng.normal(size=shape), dtype)

    def run(*operands):
      return ops.normalize(*operands, 1e-5, relu)

    (y, mean, var), pull = jax.vjp(jax.jit(run), x, scale, bias)
    want, want_pull = double(functools.partial(xla_norm, relu), x, scale, bias)
    self.assert_near(y, want, dtype)
    values = np.asarray(x, np.float64)
    self.assert_near(mean, values.mean(axis=(1, 2)), 'float32')
    self.assert_near(var, values.var(axis=(1, 2)), 'float32')
    with jax.enable_x64(True):
      want_gradients = want_pull(jnp.asarray(np.asarray(dy, np.float64)))
    for got, wanted in zip(pull((dy, mean, var)), want_gradients, strict=True):
      self.assert_near(got, wanted, dtype)

  def test_norm_is_that_of_xla(self):
    x = jax.random.normal(jax.random.key(0), (2, 6, 10, 16)) + 3
    scale, bias = jnp.linspace(0.5, 2, 16), jnp.linspace(-1, 1, 16)
    got = ops.normalize(x, scale, bias, 1e-5, True)
    want = norm.normalize(x.reshape(2, 60, 16), scale, bias, 1e-5, True, lambda value: value)
    for one, other in zip(got, want, strict=True):
      np.testing.assert_allclose(one.reshape(other.shape), other, atol=2e-5)

  @parameterized.parameters(
    ('bitnet', 'onednn', 2, 16),
    ('wide_resnet', 'onednn', 2, 16),
    ('bitnet', 'winograd', 4, 32),
    ('wide_resnet', 'winograd', 4, 32),
  )
  def test_a_network_computes_the_same(self, name, kernels, width, size):
    images = jax.random.normal(jax.random.key(0), (8, size, size, 3))
    made = {
      which: create_model(
        name,
        num_classes=10,
        width=width,
        tree_depth=2,
        num_blocks=1,
        batch_norm_group=4,
        kernels=build.choose_kernels(which, 'float32'),
      )
      for which in ('xla', kernels)
    }
    variables = made['xla'].init(jax.random.key(1), images)

    def loss(params, which):
      logits, updated = made[which].apply(
        {**variables, 'params': params}, images, train=True, mutable=['batch_stats']
      )
      return jax.nn.logsumexp(logits, axis=-1).mean(), (logits, updated)

    run = jax.jit(jax.grad(loss, has_aux=True), static_argnums=1)
    results = [run(variables['params'], which) for which in ('xla', kernels)]
    for want, got in zip(*map(jax.tree.leaves, results), strict=True):
      if kernels == 'winograd':  # Rounds more, so that a ReLU may be open here and shut there.
        self.assertLess(np.linalg.norm(got - want), 5e-2 * np.linalg.norm(want) + 1e-6)
      else:
        np.testing.assert_allclose(got, want, atol=2e-4 * max(1.0, float(jnp.abs(want).max())))

  def test_the_kernels_are_used(self):
    model = create_model(
      'bitnet',
      num_classes=2,
      width=1,
      tree_depth=1,
      num_blocks=1,
      kernels=build.choose_kernels('onednn', 'float32'),
    )
    images = jnp.zeros((2, 8, 8, 3))
    variables = model.init(jax.random.key(0), images)
    traced = jax.make_jaxpr(lambda v, x: model.apply(v, x, train=True, mutable=['batch_stats']))
    equations = list(counts.equations(traced(variables, images).jaxpr))
    plans = [str(eqn.params['attributes']) for eqn in equations if eqn.primitive.name == 'ffi_call']
    self.assertLen([plan for plan in plans if 'conv_forward' in plan], 4)
    self.assertLen([plan for plan in plans if 'norm_forward' in plan], 4)
    self.assertNotIn('conv_general_dilated', [eqn.primitive.name for eqn in equations])

  def test_threads_share_nothing(self):
    kernel = jax.random.normal(jax.random.key(0), (3, 3, 16, 16))
    run = jax.jit(lambda x: ops.conv(x, kernel, 1))
    inputs = [jax.random.normal(jax.random.key(i), (4, 16, 16, 16)) for i in range(16)]
    want = [np.asarray(run(x)) for x in inputs]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
      for _ in range(5):
        for got, wanted in zip(pool.map(lambda x: np.asarray(run(x)), inputs), want, strict=True):
          np.testing.assert_array_equal(got, wanted)

  def test_a_fault_in_a_call_is_an_error_not_a_crash(self):
    result = jax.ShapeDtypeStruct((1,), jnp.float32)
    run = jax.jit(lambda x: custom_call.call('conv_forward f32 1', [x], [result]))
    with self.assertRaisesRegex(Exception, 'not enough values to unpack'):
      jax.block_until_ready(run(jnp.zeros(1)))

  @parameterized.parameters((), ('drop',))
  def test_a_process_may_end_before_its_results(self, *arguments):
    run_program('onednn_unawaited', *arguments, check=True)

  def test_a_compiled_program_works_in_another_process(self):
    folder = self.create_tempdir().full_path
    variables = {
      'JAX_COMPILATION_CACHE_DIR': folder,
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
      'JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES': '0',
    }
    for _ in range(2):
      out = run_program('onednn_sum', env=environment(**variables), check=True)
      self.assertEqual(float(out.stdout), 8 * 8 * 100)
      files = sorted(os.listdir(folder))
    self.assertTrue([name for name in files if 'cache' in name])


class ChoiceTest(parameterized.TestCase):
  @parameterized.parameters(
    ('auto', 'float32', 'winograd'),
    ('auto', 'bfloat16', 'onednn'),
    ('onednn', 'float32', 'onednn'),
    ('winograd', 'float32', 'winograd'),
    ('xla', 'float32', 'xla'),
  )
  @absltest.skipIf(onednn.unavailable(), onednn.unavailable())
  def test_choice(self, asked, dtype, want):
    self.assertEqual(build.choose_kernels(asked, dtype).name, want)

  def test_without_the_package(self):
    out = run_program('onednn_absent', check=True)
    first, second = out.stdout.splitlines()
    self.assertEqual(first, 'xla')
    self.assertIn('config.model.kernels=onednn: onednn-cpu-gomp is not installed; use auto', second)


if __name__ == '__main__':
  absltest.main()
