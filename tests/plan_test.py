"""How long a run is, and how far the host may let the device go on by itself."""

from absl.testing import absltest, parameterized

from bitnet_jax import config as config_lib
from bitnet_jax import errors, plan


def make_config(**overrides):
  config = config_lib.default_config()
  config.update_from_flattened_dict(overrides)
  return config


class PlanTest(parameterized.TestCase):
  @parameterized.parameters((200.0, 390, 78000), (0.5, 390, 195), (1.3, 390, 507))
  def test_length(self, num_epochs, steps_per_epoch, total_steps):
    made = plan.make_plan(make_config(num_epochs=num_epochs), 50000)
    self.assertEqual(made, plan.Plan(steps_per_epoch, total_steps))

  def test_refuses_a_run_without_a_step(self):
    with self.assertRaisesRegex(errors.ConfigError, 'global_batch_size=128: .* 100 examples'):
      plan.make_plan(make_config(), 100)
    with self.assertRaisesRegex(errors.ConfigError, 'num_epochs=0.0001: no step'):
      plan.make_plan(make_config(num_epochs=1e-4), 50000)

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
    config = make_config(**{'log.every_steps': 50, 'checkpoint.every_steps': 70})
    self.assertEqual(plan.count_steps(config, plan.Plan(90, 225), step, most), count)

  def test_nothing_is_due_within_a_call(self):
    config = make_config(**{'log.every_steps': 7, 'checkpoint.every_steps': 11})
    made, step, ends = plan.Plan(13, 100), 0, set()
    while step < made.total_steps:
      step += plan.count_steps(config, made, step, 5)
      ends.add(step)
    due = [n for n in range(1, 101) if n % 7 == 0 or plan.saves(config, made, n) or n % 13 == 0]
    self.assertContainsSubset(due, ends)
    self.assertEqual(max(ends), 100)


if __name__ == '__main__':
  absltest.main()
