"""A step that does not fit: what it needs, what there is, and a batch that would fit."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bitnet_jax import errors
from bitnet_jax.distributed import devices
from bitnet_jax.runtime import cli
from bitnet_jax.training import device_memory


def whole(size):
  return size % 8 == 0


class LargestBatchTest(parameterized.TestCase):
  @parameterized.parameters(
    # 0.9 * 1000 - 100 = 800 bytes of room, 10 an example.
    (128, 100, 1280, 1000, 80),
    (128, 100, 1280, 1010, 80),
    (128, 100, 1280, 1089, 88),
    (128, 899, 1280, 1000, 0),  # No room for a batch that divides.
    (128, 2000, 1280, 1000, 0),  # Not even for what does not depend on the batch.
    (64, 100, 640, 10**9, 56),  # Less than the one that failed, whatever there seems to be.
    (64, 0, 0, 1000, 0),  # Nothing is known.
  )
  def test_leaves_a_tenth_free(self, batch, fixed, temporary, have, size):
    self.assertEqual(device_memory.largest_batch(batch, fixed, temporary, have, whole), size)


class GuardTest(absltest.TestCase):
  def guard(self, function):
    return device_memory.explain_out_of_memory(
      devices.map_devices(function), 'config.global_batch_size', 64, whole
    )

  def test_memory_that_ran_out(self):
    """10**14 bytes: more than any machine has; nothing is ever written to them."""

    def greedy(x):
      numbers = jax.random.normal(jax.random.key(0), (10**7, 10**6)) * x
      return jnp.sort(numbers, axis=0)[5]

    with self.assertRaisesRegex(
      errors.ConfigError,
      r'config.global_batch_size=64: a step needs [0-9,]{6,}\.\d GB of memory on a device, '
      r'which has [0-9.]+ GB; take a smaller network or image, or more devices',
    ) as caught:
      self.guard(greedy)(devices.replicate(np.float32(1)))
    self.assertEqual(caught.exception.exit_code, 2)

  def test_batch_that_would_fit_does(self):
    self.assertGreater(device_memory.device_memory(), 10**8)
    have = 10**9

    def needs(size):
      def step(x):
        numbers = jax.random.normal(jax.random.key(0), (size, 5 * 10**6)) * x
        return jnp.sort(numbers, axis=1)[:, 5]

      one = jax.ShapeDtypeStruct((jax.local_device_count(),), np.float32)
      stats = devices.map_devices(step).lower(one).compile().memory_analysis()
      return stats.argument_size_in_bytes + stats.temp_size_in_bytes, stats

    total, stats = needs(64)
    self.assertGreater(total, have)
    fits = device_memory.largest_batch(
      64, stats.argument_size_in_bytes, stats.temp_size_in_bytes, have, whole
    )
    self.assertBetween(fits, 8, 56)
    self.assertLess(needs(fits)[0], have)
    self.assertGreater(needs(2 * fits + 8)[0], have)

  def test_other_faults_are_left_as_they_are(self):
    def broken(_):
      raise jax.errors.JaxRuntimeError('INTERNAL: x')

    guarded = device_memory.explain_out_of_memory(broken, 'config.global_batch_size', 64, whole)
    with self.assertRaisesRegex(jax.errors.JaxRuntimeError, 'INTERNAL: x'):
      guarded(devices.replicate(np.float32(1)))

  def test_step_that_cannot_even_be_compiled(self):
    def broken(_):
      raise jax.errors.JaxRuntimeError(
        'RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1.50TiB.'
      )

    guarded = device_memory.explain_out_of_memory(broken, 'config.eval.batch_size', 64, whole)
    with self.assertRaisesRegex(errors.ConfigError, 'needs at least 1,649.3 GB of memory'):
      guarded(devices.replicate(np.float32(1)))

  def test_elsewhere_it_is_one_line_too(self):
    error = cli.as_user_error(RuntimeError('RESOURCE_EXHAUSTED: Out of memory allocating 9 bytes.'))
    self.assertEqual(error.exit_code, 2)
    self.assertIn('ran out (Out of memory allocating 9 bytes.); lower the batch size', str(error))


if __name__ == '__main__':
  absltest.main()
