"""What lies on which device, what is refused, and how often a mapped step compiles."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bitnet_jax.distributed import devices

DEVICES = 8


@contextlib.contextmanager
def count_compilations():
  """Counts what the backend compiles within the context."""
  seen = []

  def listen(event, duration, **_):
    if event == '/jax/core/compile/backend_compile_duration':
      seen.append(duration)

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    yield seen
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)


class ParallelTestCase(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    if jax.local_device_count() != DEVICES:
      self.fail(f'{jax.local_device_count()} devices, expected {DEVICES} as conftest.py forces')


class PlacementTest(ParallelTestCase):
  def test_replicate_and_read_back(self):
    tree = {
      'matrix': np.arange(6, dtype=np.float32).reshape(2, 3),
      'scalar': np.float32(1.5),
      'step': np.zeros((), np.int32) + 7,
      'python': 3,
      'nested': [np.array([True, False]), np.arange(4, dtype=np.uint8)],
    }
    replicated = devices.replicate(tree)
    for leaf, original in zip(jax.tree.leaves(replicated), jax.tree.leaves(tree), strict=True):
      self.assertEqual(leaf.shape, (DEVICES, *np.shape(original)))
      self.assertLen(leaf.sharding.device_set, DEVICES)
      for shard in leaf.addressable_shards:
        np.testing.assert_array_equal(np.asarray(shard.data)[0], original)
    back = devices.read_back(replicated)
    self.assertEqual(jax.tree.structure(back), jax.tree.structure(tree))
    for leaf, original in zip(jax.tree.leaves(back), jax.tree.leaves(tree), strict=True):
      self.assertIs(type(leaf), np.ndarray)  # a 0-d array too: checkpoints refuse NumPy's scalars
      self.assertEqual(leaf.shape, np.shape(original))
      np.testing.assert_array_equal(leaf, original)
    self.assertEqual(back['step'].dtype, np.int32)
    self.assertEqual(back['nested'][1].dtype, np.uint8)

  def test_scatter_puts_part_d_on_device_d(self):
    parts = {'order': np.arange(DEVICES * 6).reshape(DEVICES, 2, 3), 'one': np.arange(DEVICES)}
    scattered = devices.scatter(parts)
    for key, part in parts.items():
      for shard in scattered[key].addressable_shards:
        place = jax.local_devices().index(shard.device)
        np.testing.assert_array_equal(np.asarray(shard.data)[0], part[place])
      np.testing.assert_array_equal(np.asarray(scattered[key]), part)

  @parameterized.parameters(1, 4, 7, 16)
  def test_scatter_refuses_another_number_of_parts(self, parts):
    with self.assertRaisesRegex(ValueError, f'first dimension {parts} for {DEVICES} devices'):
      devices.scatter({'order': np.zeros((parts, 2))})


class MapDevicesTest(ParallelTestCase):
  @parameterized.parameters(1, 4, 16)
  def test_refuses_another_leading_dimension(self, leading):
    """pmap alone would run on that many devices and say nothing."""
    double = devices.map_devices(lambda tree, other: tree)
    good, bad = np.zeros((DEVICES, 2)), np.zeros((leading, 2))
    message = f'leading dimension {leading} on {DEVICES} devices'
    with self.assertRaisesRegex(ValueError, message):
      double({'a': good, 'b': bad}, good)
    with self.assertRaisesRegex(ValueError, message):
      double({'a': good}, bad)
    double({'a': good}, good)

  def test_refuses_an_argument_without_dimensions(self):
    with self.assertRaisesRegex(ValueError, f'no leading dimension.* {DEVICES} devices'):
      devices.map_devices(lambda x: x)(np.float32(1))

  def test_reductions_and_positions(self):
    def step(x):
      tree = {'x': x}
      positions = devices.global_positions(3)
      return devices.sum_over_devices(tree), devices.mean_over_devices(tree), positions

    x = np.arange(DEVICES, dtype=np.float32) ** 2
    total, mean, positions = devices.map_devices(step)(x)
    np.testing.assert_array_equal(total['x'], np.full(DEVICES, x.sum()))
    np.testing.assert_allclose(mean['x'], np.full(DEVICES, x.mean()))
    np.testing.assert_array_equal(positions, np.arange(DEVICES * 3).reshape(DEVICES, 3))
    self.assertEqual(positions.dtype, jnp.int32)


class StepTest(ParallelTestCase):
  """A loop such as training's: replicated state that is donated, scattered inputs."""

  def setUp(self):
    super().setUp()

    def step(state, inputs):
      batch = inputs['x'][state['step'] % 2]
      gradient = devices.mean_over_devices(batch.mean(axis=0))
      weights = state['weights'] - 0.5 * gradient
      return {'step': state['step'] + 1, 'weights': weights}, {'norm': jnp.abs(gradient).sum()}

    self.x = np.random.default_rng(0).normal(size=(DEVICES, 2, 4, 3)).astype(np.float32)
    self.inputs = devices.scatter({'x': self.x})
    self.step = devices.map_devices(step, donate=(0,))

  def start(self):
    state = {'step': np.zeros((), np.int32), 'weights': np.ones(3, np.float32)}
    return devices.replicate(state)

  def test_compiles_once(self):
    state = self.start()
    with count_compilations() as compilations:
      for _ in range(4):
        state, report = self.step(state, self.inputs)
        jax.block_until_ready(report)
    self.assertLen(compilations, 1)
    with count_compilations() as compilations:  # as after a restart or a new epoch
      inputs = devices.scatter({'x': self.x})
      state, _ = self.step(devices.replicate(devices.read_back(state)), inputs)
      jax.block_until_ready(state)
    self.assertEmpty(compilations)

  def test_result_is_that_of_one_device(self):
    state = self.start()
    weights = np.ones(3)
    for step in range(3):
      state, _ = self.step(state, self.inputs)
      weights = weights - 0.5 * self.x[:, step % 2].reshape(-1, 3).mean(axis=0)
    back = devices.read_back(state)
    self.assertEqual(back['step'], 3)
    np.testing.assert_allclose(back['weights'], weights, rtol=1e-5)
    for weights in np.asarray(state['weights']):
      np.testing.assert_array_equal(weights, back['weights'])

  def test_what_was_read_back_survives_donation(self):
    state, _ = self.step(self.start(), self.inputs)
    back = devices.read_back(state)
    kept = jax.tree.map(np.copy, back)
    donated = state['weights']
    for _ in range(3):
      state, _ = self.step(state, self.inputs)
    jax.block_until_ready(state)
    self.assertTrue(donated.is_deleted())
    for leaf, original in zip(jax.tree.leaves(back), jax.tree.leaves(kept), strict=True):
      np.testing.assert_array_equal(leaf, original)
      self.assertTrue(leaf.flags.owndata)
    self.assertGreater(np.abs(back['weights'] - devices.read_back(state)['weights']).max(), 0)


if __name__ == '__main__':
  absltest.main()
