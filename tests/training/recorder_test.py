"""What is logged of calls of one and of many steps, and how far the host runs ahead."""

import itertools
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized

from bitnet_jax.distributed import devices
from bitnet_jax.logs.progress_bar import Silent
from bitnet_jax.training import recorder, steps
from bitnet_jax.training.plan import Plan


def report(count):
  """After so many steps with a loss of 2, on the devices."""
  sums = {name: np.float32(count) for name in steps.zero_sums()}
  sums['loss'] = np.float32(2 * count)
  made = {'interval': sums, 'epoch': sums, 'learning_rate': np.float32(0.1), 'diverging': 0}
  return devices.replicate(made)


class RecorderTest(parameterized.TestCase):
  def record(self, counts, **options):
    writer = mock.Mock()
    made = recorder.Recorder(
      writer,
      Silent(),
      Plan(20, 20),
      global_batch_size=64,
      log_every_steps=10,
      seconds=5.0,
      **options,
    )
    return made, writer

  @parameterized.parameters(([1] * 20,), ([5] * 4,), ([10] * 2,), ([3, 7, 9, 1],))
  def test_seconds_are_those_of_a_step(self, counts):
    """A step takes half a second; the first call compiles and is not timed."""
    made, writer = self.record(counts)
    made._since = 0.0
    ends = [0.5 * step for step in itertools.accumulate(counts)]
    # The module's clock alone: other threads of the process read time.monotonic too.
    with mock.patch.object(recorder, 'time', mock.Mock(monotonic=mock.Mock(side_effect=ends))):
      for step, count in zip(itertools.accumulate(counts), counts, strict=True):
        made.add(step, report(step), count)
      made.drain()
    self.assertEqual(made.seconds, 5.0 + 10.0)
    rows = [call.args for call in writer.write.call_args_list]
    self.assertEqual([row[:2] for row in rows], [('train', 10), ('train', 20), ('epoch', 20)])
    timed = [row[2] for row in rows if row[0] == 'train' and 'seconds_per_step' in row[2]]
    self.assertLen(timed, 1 if counts[0] == 10 else 2)
    for values in timed:
      self.assertAlmostEqual(values['seconds_per_step'], 0.5)
      self.assertAlmostEqual(values['images_per_second'], 128)
    self.assertAlmostEqual(rows[0][2]['loss'], 2.0)

  def test_runs_ahead_by_fewer_calls_of_many_steps(self):
    for most, ahead in ((1, 4), (10, 1)):
      self.assertEqual(Plan(9, 9, most).run_ahead, ahead)
      made, writer = self.record((), ahead=ahead)
      for call in range(1, ahead + 1):
        made.add(10 * call, report(10 * call), 10)
      self.assertFalse(writer.write.called)
      made.add(10 * ahead + 10, report(10), 10)
      self.assertTrue(writer.write.called)

  def test_divergence_within_a_call_is_seen_at_its_end(self):
    made, _ = self.record(())
    diverged = report(10)
    diverged['diverging'] = devices.replicate(np.int32(steps.DIVERGED))
    made.add(7, diverged, 7)
    made.drain()
    self.assertEqual(made.diverged, (7, 2.0))

  def test_run_that_ends_with_a_large_loss_has_diverged(self):
    for step, want in ((19, None), (20, (20, 2.0))):
      made, _ = self.record(())
      large = report(step)
      large['diverging'] = devices.replicate(np.int32(1))
      made.add(step, large)
      made.drain()
      self.assertEqual(made.diverged, want)


if __name__ == '__main__':
  absltest.main()
