"""The learning rate either side of each change, and SGD against Torch's, written in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest, parameterized

from bitnet_jax.training import optim


def make_schedule(**fields):
  defaults = {
    'schedule': 'step',
    'learning_rate': 0.1,
    'drop_epochs': (60, 120, 160),
    'drop_factor': 0.2,
    'warmup_epochs': 0.0,
    'steps_per_epoch': 390,
    'total_steps': 200 * 390,
  }
  return jax.jit(optim.make_schedule(**{**defaults, **fields}))


class ScheduleTest(parameterized.TestCase):
  @parameterized.parameters(
    (0, 0.1), (59 * 390 - 1, 0.1), (59 * 390, 0.02), (119 * 390 - 1, 0.02), (119 * 390, 0.004),
    (159 * 390 - 1, 0.004), (159 * 390, 0.0008), (200 * 390 - 1, 0.0008),
  )  # fmt: skip
  def test_cifar(self, step, rate):
    """Epoch 60, counted from 1, is preceded by 59 epochs of 390 steps."""
    np.testing.assert_allclose(make_schedule()(step), rate, rtol=1e-6)

  @parameterized.parameters(
    (0, 0.1), (150_119, 0.1), (150_120, 0.01), (300_239, 0.01), (300_240, 0.001), (450_359, 0.001)
  )
  def test_ilsvrc12(self, step, rate):
    """Thirty epochs of 5004 steps at each rate: drops at the start of epochs 31 and 61."""
    schedule = make_schedule(
      drop_epochs=(31, 61), drop_factor=0.1, steps_per_epoch=5004, total_steps=90 * 5004
    )
    np.testing.assert_allclose(schedule(step), rate, rtol=1e-6)

  def test_epoch_one_drops_at_once(self):
    self.assertEqual(optim.drop_steps((1, 2, 60), 390), (0, 390, 59 * 390))
    np.testing.assert_allclose(make_schedule(drop_epochs=(1,))(0), 0.02, rtol=1e-6)

  def test_no_drop(self):
    schedule = make_schedule(drop_epochs=())
    np.testing.assert_allclose(schedule(10**6), 0.1, rtol=1e-6)

  @parameterized.parameters((0, 1 / 20), (9, 10 / 20), (18, 19 / 20), (19, 1), (20, 1), (99, 1))
  def test_warm_up_rises_to_the_whole_rate(self, step, share):
    schedule = make_schedule(warmup_epochs=2.0, steps_per_epoch=10, drop_epochs=())
    np.testing.assert_allclose(schedule(step), 0.1 * share, rtol=1e-6)

  @parameterized.parameters((9, 0.1 * 10 / 25), (10, 0.02 * 11 / 25), (24, 0.02), (25, 0.02))
  def test_warm_up_leaves_the_drops_in_place(self, step, rate):
    schedule = make_schedule(warmup_epochs=2.5, steps_per_epoch=10, drop_epochs=(2,))
    np.testing.assert_allclose(schedule(step), rate, rtol=1e-6)

  @parameterized.parameters((0, 1), (25, 0.5 + 0.5 * np.cos(np.pi / 4)), (50, 0.5), (100, 0))
  def test_cosine(self, step, share):
    schedule = make_schedule(schedule='cosine', total_steps=100)
    np.testing.assert_allclose(schedule(step), 0.1 * share, rtol=1e-5, atol=1e-9)

  def test_cosine_ends_above_zero_and_stays_at_zero(self):
    schedule = make_schedule(schedule='cosine', total_steps=100, warmup_epochs=1, steps_per_epoch=5)
    np.testing.assert_allclose(schedule(99), 0.05 * (1 + np.cos(0.99 * np.pi)), rtol=1e-3)
    self.assertEqual(float(schedule(150)), 0)
    np.testing.assert_allclose(schedule(0), 0.1 / 5, rtol=1e-6)

  def test_rate_is_float32(self):
    for name in ('step', 'cosine'):
      self.assertEqual(make_schedule(schedule=name)(0).dtype, jnp.float32)

  def test_unknown_schedule(self):
    with self.assertRaisesRegex(ValueError, "'linear' is not known; use step or cosine"):
      make_schedule(schedule='linear')


def torch_sgd(params, gradients, rates, *, momentum, nesterov, weight_decay, resets=()):
  """The loop of Torch's documentation of SGD, in float64; gives the parameters of every step."""
  params, buffers = {key: np.float64(value) for key, value in params.items()}, {}
  history = []
  for step, (gradient, rate) in enumerate(zip(gradients, rates, strict=True)):
    for key, value in params.items():
      g = gradient[key] + weight_decay * value
      fresh = key not in buffers or step in resets
      buffers[key] = g if fresh else momentum * buffers[key] + g
      params[key] = value - rate * (g + momentum * buffers[key] if nesterov else buffers[key])
    history.append(dict(params))
  return history


class OptimizerTest(parameterized.TestCase):
  def run_both(self, *, steps=5, resets=(), **options):
    random = np.random.default_rng(0)
    shapes = {'kernel': (3, 3, 2, 4), 'scale': (4,), 'bias': (4,)}
    params = {key: random.normal(size=shape).astype(np.float32) for key, shape in shapes.items()}
    gradients = [
      {key: random.normal(size=shape).astype(np.float32) for key, shape in shapes.items()}
      for _ in range(steps)
    ]
    # One step to an epoch: the rate drops before the third step.
    schedule = make_schedule(drop_epochs=(3,), steps_per_epoch=1)
    rates = [0.1, 0.1] + [0.02] * (steps - 2)
    want = torch_sgd(params, gradients, rates, resets=resets, **options)
    optimizer = optim.make_optimizer(schedule, reset_momentum_steps=resets, **options)
    state, update, got = optimizer.init(params), jax.jit(optimizer.update), []
    for gradient in gradients:
      updates, state = update(gradient, state, params)
      params = optax.apply_updates(params, updates)
      got.append(params)
    return got, want

  def assert_equal_history(self, got, want):
    for step, (ours, theirs) in enumerate(zip(got, want, strict=True)):
      for key in theirs:
        message = f'{key} after step {step}'
        np.testing.assert_allclose(ours[key], theirs[key], atol=1e-6, err_msg=message)

  @parameterized.product(nesterov=(True, False), momentum=(0.9, 0.0), weight_decay=(5e-4, 0.3, 0.0))
  def test_is_torchs_sgd(self, **options):
    self.assert_equal_history(*self.run_both(**options))

  @parameterized.product(nesterov=(True, False), resets=((2,), (2, 4), (0, 3)))
  def test_buffer_is_cleared_before_drops(self, nesterov, resets):
    options = {'nesterov': nesterov, 'momentum': 0.9, 'weight_decay': 5e-4}
    got, want = self.run_both(resets=resets, **options)
    self.assert_equal_history(got, want)
    kept, _ = self.run_both(**options)
    first = next(step for step in resets if step)
    np.testing.assert_array_equal(got[first - 1]['kernel'], kept[first - 1]['kernel'])
    self.assertGreater(np.abs(got[first]['kernel'] - kept[first]['kernel']).max(), 1e-3)

  def test_decay_reaches_biases_and_batch_norm(self):
    params = {'scale': jnp.array([2.0]), 'bias': jnp.array([-3.0])}
    optimizer = optim.make_optimizer(lambda _: 0.5, momentum=0.0, nesterov=False, weight_decay=0.1)
    zeros = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zeros, optimizer.init(params), params)
    np.testing.assert_allclose(updates['scale'], [-0.1], rtol=1e-6)
    np.testing.assert_allclose(updates['bias'], [0.15], rtol=1e-6)

  @absltest.skipIf(jax.__version_info__ < (0, 12), 'an older XLA fuses through barriers')
  def test_the_rate_is_computed_once_for_all_parameters(self):
    optimizer = optim.make_optimizer(
      make_schedule(), momentum=0.9, nesterov=True, weight_decay=5e-4
    )

    def operations(count):
      params = [jnp.ones(3 + i) for i in range(count)]
      update = jax.jit(optimizer.update).lower(params, optimizer.init(params), params)
      return update.compile().as_text().count(' sign(')  # One for each drop.

    self.assertEqual(operations(5), operations(1))


if __name__ == '__main__':
  absltest.main()
