"""What the loop tells the watchdog; runs of the whole loop are in train_test and stop_test."""

from unittest import mock

from absl.testing import absltest

from bitnet_jax.config import fields
from bitnet_jax.runtime import watchdog
from bitnet_jax.training import loop
from bitnet_jax.training.plan import Plan


class SettleTest(absltest.TestCase):
  def test_processes_that_do_not_save_wait_as_patiently_as_the_one_that_does(self):
    stopping = mock.Mock(return_value=False)
    run = mock.Mock(
      config=fields.default_config(), plan=Plan(10, 20), checkpoints=None, stopping=stopping
    )
    self.assertEqual(loop.evaluate_and_save(run, 3, None), {})
    run.watch.report.assert_called_with(watchdog.SAVING)

  def test_after_a_save_a_step_has_its_own_limit(self):
    moved = []
    config = fields.default_config()
    config.update_from_flattened_dict({'eval.every_epochs': 0, 'checkpoint.every_steps': 2})
    recorder = mock.Mock(diverged=None)
    run = mock.Mock(
      config=config,
      plan=Plan(10, 3),
      checkpoints=None,
      recorder=recorder,
      stopping=mock.Mock(return_value=False),
      evaluate=mock.Mock(return_value={'error': 0.5}),
    )
    run.watch.report.side_effect = lambda phase, *_: moved.append(phase)
    take_steps = mock.Mock(return_value=(mock.Mock(), {}))
    loop.train_steps(run, take_steps, mock.Mock(), mock.Mock(), 0, mock.Mock(settled=True))
    training = 'in training'
    saves = [watchdog.SAVING, training]
    self.assertEqual(moved, [training, training, training, *saves, training, *saves])


if __name__ == '__main__':
  absltest.main()
