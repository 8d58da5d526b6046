"""How long a run is, and how far the host may let the device go on by itself."""

from unittest import mock

import jax
from absl.testing import absltest, parameterized

from bitnet_jax import errors
from bitnet_jax.config import defaults
from bitnet_jax.training import plan


def make_config(**overrides):
  config = defaults.default_config()
  config.update_from_flattened_dict(overrides)
  return config


class PlanTest(parameterized.TestCase):
  @parameterized.parameters((200.0, 390, 78000), (0.5, 390, 195), (1.3, 390, 507))
  def test_length(self, num_epochs, steps_per_epoch, total_steps):
    made = plan.make_plan(make_config(num_epochs=num_epochs), 50000, True)
    self.assertEqual(made, plan.Plan(steps_per_epoch, total_steps))

  def test_refuses_a_run_without_a_step(self):
    with self.assertRaisesRegex(errors.ConfigError, 'global_batch_size=128: .* 100 examples'):
      plan.make_plan(make_config(), 100, True)
    with self.assertRaisesRegex(errors.ConfigError, 'num_epochs=0.0001: no step'):
      plan.make_plan(make_config(num_epochs=1e-4), 50000, True)

  @parameterized.parameters(
    # step, most, what comes first
    (0, 10, 10),
    (0, 1, 1),
    (45, 10, 5),  # metrics
    (65, 10, 5),  # a checkpoint
    (85, 10, 5),  # the end of an epoch
    (89, 10, 1),
    (185, 10, 10),
    (224, 10, 1),  # the end of the run
  )
  def test_steps_before_something_is_due(self, step, most, count):
    self.assertEqual(plan.Plan(90, 225, most).count_steps(step, (50, 70)), count)

  def test_nothing_is_due_within_a_call(self):
    config = make_config(
      **{'checkpoint.every_steps': 11, 'checkpoint.every_epochs': 2, 'eval.every_epochs': 3}
    )
    made, step, ends = plan.Plan(13, 100, 5), 0, set()
    while step < made.total_steps:
      step += made.count_steps(step, (7, config.checkpoint.every_steps))
      ends.add(step)
    due = {
      n
      for n in range(1, 101)
      if n % 7 == 0
      or plan.saves(config, made, n)
      or plan.evaluates(config, made, n)
      or made.ends_epoch(n)
    }
    self.assertContainsSubset(due, ends)
    self.assertContainsSubset({39, 77, 100}, due)

  def test_zero_stands_for_never(self):
    self.assertEqual(plan.Plan(90, 225, 10).count_steps(3, (0,)), 10)
    self.assertEqual(plan.steps_per_execution(make_config(), True), 1)
    self.assertEqual(plan.steps_per_execution(make_config(steps_per_execution=7), True), 7)
    with mock.patch.object(jax, 'default_backend', return_value='gpu'):
      self.assertEqual(plan.steps_per_execution(make_config(), True), 10)
      self.assertEqual(plan.steps_per_execution(make_config(), False), 1)


if __name__ == '__main__':
  absltest.main()
