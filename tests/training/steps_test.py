"""One step: what it sums, what it reports, and that it does not see how many devices there are."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest, parameterized

from bitnet_jax import models
from bitnet_jax.data.batches import resident
from bitnet_jax.data.images import augment
from bitnet_jax.distributed import devices
from bitnet_jax.training import metrics, optim, steps

EXAMPLES, SIZE, BATCH, STEPS_PER_EPOCH = 40, 8, 16, 2
MEAN, STD = (120.0,), (60.0,)


def make_model(group=0, axis_name=devices.AXIS):
  return models.create_model(
    'bitnet',
    num_classes=6,
    width=1,
    tree_depth=2,
    num_blocks=1,
    batch_norm_group=group,
    axis_name=axis_name,
  )


def make_optimizer():
  schedule = optim.make_schedule(
    schedule='step',
    learning_rate=0.1,
    drop_epochs=(2,),
    drop_factor=0.5,
    warmup_epochs=0.0,
    steps_per_epoch=STEPS_PER_EPOCH,
    total_steps=8,
  )
  return optim.make_optimizer(schedule, momentum=0.9, nesterov=True, weight_decay=1e-3), schedule


def augment_batch(images, step, positions):
  keys = augment.example_keys(jax.random.key(3), step, positions)
  transform = augment.make_train_augment(mean=MEAN, std=STD, pad=1, pad_mode='zeros', flip=True)
  return transform(images, keys)


@functools.cache
def data():
  rng = np.random.default_rng(0)
  labels = rng.integers(0, 6, EXAMPLES).astype(np.int32)
  images = rng.integers(0, 128, (EXAMPLES, SIZE, SIZE, 1)) + labels[:, None, None, None] * 20
  return {'image': images.astype(np.uint8), 'label': labels}


@functools.cache
def initial_state():
  optimizer, _ = make_optimizer()
  return steps.create_state(make_model(), optimizer, 0, (SIZE, SIZE, 1))


def make_step(group=0, log_every_steps=3):
  optimizer, schedule = make_optimizer()
  return steps.make_train_step(
    make_model(group),
    optimizer,
    schedule,
    fetch_batch=resident.fetch_batch,
    augment=augment_batch,
    steps_per_epoch=STEPS_PER_EPOCH,
    log_every_steps=log_every_steps,
  )


def run_on_one(num_steps, group=0):
  """The steps with an axis of size one: nothing is mapped over devices."""
  order = resident.training_order(np.arange(EXAMPLES), BATCH, 1)
  inputs = jax.tree.map(lambda x: np.asarray(x)[None], data()) | {'order': order}
  step = jax.jit(jax.vmap(make_step(group), axis_name=devices.AXIS))
  state, reports = jax.tree.map(lambda x: jnp.asarray(x)[None], initial_state()), []
  for _ in range(num_steps):
    state, report = step(state, inputs)
    reports.append(jax.tree.map(lambda x: np.asarray(x[0]), report))
  return jax.tree.map(lambda x: np.asarray(x[0]), state), reports


def run_on_all(num_steps, group=0):
  """The same on every device of this process."""
  order = resident.training_order(np.arange(EXAMPLES), BATCH, jax.device_count())
  inputs = devices.replicate(data()) | {'order': devices.scatter(order)}
  step = devices.map_devices(make_step(group), donate=(0,))
  state, reports = devices.replicate(initial_state()), []
  for _ in range(num_steps):
    state, report = step(state, inputs)
    reports.append(devices.read_back(report))
  return devices.read_back(state), reports


def run_repeated(counts):
  """The same in calls of so many steps."""
  order = resident.training_order(np.arange(EXAMPLES), BATCH, jax.device_count())
  inputs = devices.replicate(data()) | {'order': devices.scatter(order)}
  take_steps = devices.map_devices(steps.make_multi_step(make_step(), 3), donate=(0,))
  state, reports = devices.replicate(initial_state()), []
  for count in counts:
    state, report = take_steps(state, inputs, devices.replicate(np.int32(count)))
    reports.append(devices.read_back(report))
  return devices.read_back(state), reports


class TrainStepTest(parameterized.TestCase):
  @parameterized.parameters(0, 2, 8)
  def test_eight_devices_make_the_update_of_one(self, group):
    """Groups of a whole batch, of one device's part, and of four devices."""
    self.assertEqual(jax.device_count(), 8)
    one, one_reports = run_on_one(2, group)
    many, many_reports = run_on_all(2, group)
    for (path, a), b in zip(
      jax.tree_util.tree_leaves_with_path((one.params, one.batch_stats, one.opt_state)),
      jax.tree.leaves((many.params, many.batch_stats, many.opt_state)),
      strict=True,
    ):
      np.testing.assert_allclose(a, b, atol=2e-5, rtol=2e-4, err_msg=jax.tree_util.keystr(path))
    for a, b in zip(jax.tree.leaves(one_reports), jax.tree.leaves(many_reports), strict=True):
      np.testing.assert_allclose(a, b, atol=1e-5, rtol=1e-4)

  def test_many_steps_in_a_call(self):
    single, single_reports = run_on_all(4)
    calls, reports = run_repeated((3, 1))
    again, _ = run_repeated((1, 2, 1))
    self.assertEqual(calls.step, 4)
    for a, b in zip(jax.tree.leaves(reports), jax.tree.leaves(single_reports[2:]), strict=True):
      np.testing.assert_allclose(a, b, atol=1e-4, rtol=1e-3)
    for a, b, c in zip(*map(jax.tree.leaves, (calls, again, single)), strict=True):
      np.testing.assert_array_equal(a, b)
      np.testing.assert_allclose(a, c, atol=1e-4, rtol=1e-3)

  def test_first_step_against_the_gradient_by_hand(self):
    before = initial_state()
    after, reports = run_on_one(1)
    model = make_model(axis_name='')
    images, labels = data()['image'][:BATCH], data()['label'][:BATCH]
    images = augment_batch(images, 0, jnp.arange(BATCH))

    def loss(params):
      variables = {'params': params, 'batch_stats': before.batch_stats}
      logits, _ = model.apply(variables, images, train=True, mutable=['batch_stats'])
      return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(BATCH), labels])

    value, grads = jax.jit(jax.value_and_grad(loss))(before.params)
    report = reports[0]['interval']
    np.testing.assert_allclose(report['loss'] / report['count'], value, rtol=1e-5)
    stem = np.linalg.norm(np.ravel(grads['stem_conv']['kernel']))
    np.testing.assert_allclose(report['stem_gradient_norm'], stem, rtol=1e-4)
    # Nesterov's first step: 1.9 times the decayed gradient.
    for old, new, grad in zip(
      jax.tree.leaves(before.params),
      jax.tree.leaves(after.params),
      jax.tree.leaves(grads),
      strict=True,
    ):
      np.testing.assert_allclose(new, old - 0.1 * 1.9 * (grad + 1e-3 * old), atol=1e-5)

  def test_sums_restart_with_the_interval_and_the_epoch(self):
    _, reports = run_on_one(5)
    self.assertEqual([report['interval']['steps'] for report in reports], [1, 2, 3, 1, 2])
    self.assertEqual([report['epoch']['steps'] for report in reports], [1, 2, 1, 2, 1])
    self.assertEqual([report['epoch']['count'] for report in reports], [16, 32, 16, 32, 16])

  def test_reports_the_rate_the_step_was_taken_with(self):
    _, reports = run_on_one(4)
    rates = [float(report['learning_rate']) for report in reports]
    np.testing.assert_allclose(rates, [0.1, 0.1, 0.05, 0.05])

  def test_step_learns(self):
    """Class-dependent brightness is learnt: the loss of an epoch falls below a third."""
    _, reports = run_on_one(40)
    losses = [r['epoch']['loss'] / r['epoch']['count'] for r in reports[1::2]]
    self.assertLess(losses[-1], losses[0] / 3)

  def test_divergence_is_steps_in_a_row_or_a_nan(self):
    """Guessing one of six costs ln(6) = 1.79: above 17.9 the loss is too large."""
    large, count = 10 * np.log(6), 0
    counts = []
    for loss in (1.0, large + 0.01, large + 1, 1e30, large - 0.01, large + 0.01):
      count = steps._count_diverging(jnp.int32(count), jnp.float32(loss), 6)
      counts.append(int(count))
    self.assertEqual(counts, [0, 1, 2, 3, 0, 1])
    self.assertEqual(count.dtype, jnp.int32)
    for loss in (np.nan, np.inf, -np.inf):
      for before in (0, 7):
        count = steps._count_diverging(jnp.int32(before), jnp.float32(loss), 6)
        self.assertEqual(count, steps.DIVERGED)
    for loss in (1.0, 1e30, np.nan):
      stays = steps._count_diverging(count, jnp.float32(loss), 6)
      self.assertEqual(stays, steps.DIVERGED)
    last = steps._count_diverging(jnp.int32(steps.DIVERGED - 1), jnp.float32(1e30), 6)
    self.assertEqual(last, steps.DIVERGED)

  def test_create_state_is_a_function_of_the_seed(self):
    optimizer, _ = make_optimizer()
    again = steps.create_state(make_model(), optimizer, 0, (SIZE, SIZE, 1))
    other = steps.create_state(make_model(), optimizer, 1, (SIZE, SIZE, 1))
    kernel = initial_state().params['stem_conv']['kernel']
    np.testing.assert_array_equal(again.params['stem_conv']['kernel'], kernel)
    self.assertTrue(np.any(other.params['stem_conv']['kernel'] != kernel))

  @parameterized.parameters((), (3, 5))
  def test_a_state_begins_as_the_optimizer_says(self, *resets):
    optimizer = optim.make_optimizer(
      lambda _: 0.1,
      momentum=0.9,
      nesterov=True,
      weight_decay=0.0,
      reset_momentum_steps=resets,
    )
    state = steps.create_state(make_model(), optimizer, 0, (SIZE, SIZE, 1))
    want = jax.device_get(optimizer.init(state.params))
    jax.tree.map(np.testing.assert_array_equal, state.opt_state, want)
    shapes = steps.state_shapes(make_model(), optimizer, (SIZE, SIZE, 1))
    self.assertEqual(
      jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), shapes),
      jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), state),
    )


class EvalStepTest(parameterized.TestCase):
  @parameterized.parameters(8, 16, 24, 40, 64)
  def test_every_example_counts_once(self, batch_size):
    model = make_model(axis_name='')
    state = initial_state()
    variables = {'params': state.params, 'batch_stats': state.batch_stats}
    order = resident.evaluation_order(EXAMPLES, batch_size, jax.device_count())
    inputs = devices.replicate(data()) | {'order': devices.scatter(order)}
    eval_step = devices.map_devices(
      steps.make_eval_step(
        model,
        fetch_batch=resident.fetch_batch,
        normalize=lambda images: augment.normalize(images, MEAN, STD),
      ),
      donate=(2,),
    )
    carry = devices.replicate(steps.start_evaluation())
    for _ in range(order.shape[1]):
      carry = eval_step(devices.replicate(variables), inputs, carry)
    sums = devices.read_back(carry['sums'])

    logits = jax.jit(model.apply)(variables, augment.normalize(data()['image'], MEAN, STD))
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, data()['label'])
    self.assertEqual(sums['count'], EXAMPLES)
    np.testing.assert_allclose(sums['loss'], losses.sum(), rtol=1e-5)
    self.assertEqual(sums['correct'], np.sum(logits.argmax(-1) == data()['label']))
    self.assertEqual(metrics.summarize(sums)['error'], 1 - sums['correct'] / EXAMPLES)


if __name__ == '__main__':
  absltest.main()
