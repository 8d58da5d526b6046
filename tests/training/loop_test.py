"""What the loop tells the watchdog; runs of the whole loop are in train_test and stop_test."""

from unittest import mock

from absl.testing import absltest

from bitnet_jax.config import defaults
from bitnet_jax.runtime import watchdog
from bitnet_jax.training import loop
from bitnet_jax.training.plan import Plan


def make_run(config, plan, **attributes):
  control = mock.Mock()
  control.stop_requested.return_value = False
  job = mock.Mock(config=config, plan=plan, control=control)
  return mock.Mock(job=job, checkpoints=None, **attributes)


class LoopTest(absltest.TestCase):
  def test_processes_wait_for_the_one_that_saves(self):
    run = make_run(defaults.default_config(), Plan(10, 20))
    self.assertEqual(loop.evaluate_and_save(run, 3, None), {})
    run.job.control.report.assert_called_with(watchdog.SAVING)

  def test_after_a_save_a_step_has_its_own_limit(self):
    config = defaults.default_config()
    config.update_from_flattened_dict({'eval.every_epochs': 0, 'checkpoint.every_steps': 2})
    run = make_run(
      config,
      Plan(10, 3),
      recorder=mock.Mock(diverged=None),
      evaluate=mock.Mock(return_value={'error': 0.5}),
    )
    take_steps = mock.Mock(return_value=(mock.Mock(), {}))
    loop.train_steps(run, take_steps, mock.Mock(), 0, mock.Mock(evaluated=True))
    reported = [call.args[0] for call in run.job.control.report.call_args_list]
    training = 'in training'
    saves = [watchdog.SAVING, training]
    self.assertEqual(reported, [training, training, training, *saves, training, *saves])


if __name__ == '__main__':
  absltest.main()
