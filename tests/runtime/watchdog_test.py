"""The watchdog in processes of its own: what stalls is ended, what moves or was stopped is not."""

import pathlib
import signal
import subprocess
import sys
import time

from absl.testing import absltest, parameterized

from bitnet_jax import errors
from bitnet_jax.distributed import heartbeat
from tests.helpers import train_process
from tests.helpers.paths import program


def run(name, **options):
  return subprocess.Popen(
    [sys.executable, program(name)],
    env={**train_process.environment(1), 'PYTHONUNBUFFERED': ''},  # Prints are buffered.
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    **options,
  )


class WatchdogTest(absltest.TestCase):
  """The programs mostly sleep, so all of them run at once."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    names = 'watchdog_stalls', 'watchdog_stalls_at_start', 'watchdog_moves', 'cluster_ends'
    cls.processes = {name: run(name) for name in names}

  def test_ends_what_stalls_with_stacks_and_one_line(self):
    process = self.processes['watchdog_stalls']
    stdout, stderr = process.communicate(timeout=60)
    self.assertEqual((process.returncode, stdout), (7, 'waits\n'), stderr)
    *stacks, line = stderr.splitlines()
    self.assertRegex(
      line,
      'bitnet_jax: error: config.watch.stall_seconds=0.5: no step for [0-9]+ s; the last was 9, '
      'in training; the stacks of all threads are above; run the command again to go on',
    )
    path = program('watchdog_stalls')
    number = pathlib.Path(path).read_text().splitlines().index('time.sleep(60)') + 1
    self.assertIn(f'  File "{path}", line {number} in <module>', stacks)

  def test_ends_a_cluster_that_takes_no_first_step(self):
    process = self.processes['watchdog_stalls_at_start']
    stdout, stderr = process.communicate(timeout=60)
    self.assertEqual(process.returncode, 7, stderr)
    self.assertStartsWith(stdout, 'waits\ntold: ')
    line = 'no step for [0-9]+ s; the last was 0, at the start; process 1 is behind; the stacks'
    self.assertRegex(stderr.splitlines()[-1], line)

  def test_member_ends_at_once_with_what_it_printed(self):
    process = self.processes['cluster_ends']
    stdout, stderr = process.communicate(timeout=60)
    self.assertEqual((process.returncode, stderr), (7, ''))
    self.assertEqual(stdout, 'said\ntold: process=1: lost; run again\n')

  def test_lets_through_what_moves(self):
    process = self.processes['watchdog_moves']
    stdout, stderr = process.communicate(timeout=60)
    self.assertEqual((process.returncode, stdout, stderr), (0, 'through\n', ''))

  def test_time_while_stopped_does_not_count(self):
    """As by Ctrl-Z, or a machine that slept."""
    process = run('watchdog_stopped', stdin=subprocess.PIPE)
    self.assertEqual(process.stdout.readline(), 'waits\n')
    process.send_signal(signal.SIGSTOP)
    time.sleep(7)
    process.send_signal(signal.SIGCONT)
    stdout, stderr = process.communicate('\n', timeout=60)
    self.assertEqual((process.returncode, stdout, stderr), (0, 'through\n', ''))


class Keys:
  """The keys of a coordinator, shared by the heartbeats of a test."""

  def __init__(self):
    self.values, self.answers = {}, True

  def key_value_set(self, key, value, allow_overwrite=False):
    self.values[key] = value

  def key_value_dir_get(self, prefix):
    if not self.answers:
      raise RuntimeError('UNAVAILABLE: Socket closed')
    return [(key, value) for key, value in self.values.items() if key.startswith(prefix)]


class HeartbeatTest(parameterized.TestCase):
  def heartbeats(self, count, keys):
    made = [heartbeat.Heartbeat(number, count, 2.0, keys) for number in range(count)]
    for one in made:
      self.addCleanup(one.close)
    return made

  def wait_for(self, one, seconds=10.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
      fault = one.fault(time.monotonic())
      if fault:
        return fault
      time.sleep(0.05)
    return None

  def test_silent_process_is_named_with_its_last_step(self):
    first, second, third = self.heartbeats(3, Keys())
    second.report(41)
    first.report(44)
    self.assertIsNone(self.wait_for(first, 3))
    second.close()
    fault = self.wait_for(first)
    self.assertRegex(str(fault), 'process=1: lost: no sign .* last seen at step 41; this one was')
    self.assertRegex(str(fault), 'at step 44; run all processes again')
    self.assertIsInstance(fault, errors.PeerError)
    self.assertIn('process=1', str(self.wait_for(third)))

  def test_coordinator_that_does_not_answer(self):
    keys = Keys()
    _, second = self.heartbeats(2, keys)
    self.assertIsNone(self.wait_for(second, 1))
    keys.answers = False
    self.assertIn('process=0: lost: no sign of life', str(self.wait_for(second)))

  def test_errors_of_others_are_told_and_passed_on(self):
    first, second, third = self.heartbeats(3, Keys())
    second.report(7)
    second.announce_exit('image=cat.jpg: damaged; repair it')
    started = time.monotonic()
    fault = str(self.wait_for(first))
    self.assertRegex(fault, 'process=1: it ended at step 7, this one at 0: image=cat.jpg: damaged')
    # Time for an error of its own: all processes may have met with the same one.
    self.assertGreater(time.monotonic() - started, 2)
    lost = errors.PeerError('process', 1, 'lost: no sign of life; then some', 'run all again')
    third.announce_exit(str(lost))
    del second
    got = first._ended(2, str(lost))
    self.assertEqual(str(got), str(lost))

  def test_first_process_leaves_last(self):
    first, second = self.heartbeats(2, Keys())
    self.wait_for(first, 1)
    started = time.monotonic()
    first.announce_exit('storage=x: full; free space')
    self.assertGreater(time.monotonic() - started, 4)  # The other never ends.
    second.announce_exit('process=0: ended; run again')
    started = time.monotonic()
    first.announce_exit('storage=x: full; free space')
    self.assertLess(time.monotonic() - started, 4)

  def test_says_who_is_behind(self):
    first, second = self.heartbeats(2, Keys())
    second.report(12)
    self.wait_for(first, 1)
    self.assertEqual(first.stalled(15), '; process 1 is behind, at step 12')
    self.assertEqual(first.stalled(12), '')

  def test_time_while_stopped_does_not_count(self):
    first, second = self.heartbeats(2, Keys())
    second.close()
    first.add_paused_time(100)
    self.assertIsNone(first.fault(time.monotonic() + 90))
    self.assertIsNotNone(first.fault(time.monotonic() + 110))


class StuckTest(train_process.DataCase):
  def test_run_that_is_stuck_is_ended(self):
    fields = {'watch.stall_seconds': 4}
    stuck = subprocess.run(
      train_process.command(self.folder / 'stuck', self.data_dir, fields, 'stuck_training'),
      env=train_process.environment(1),
      cwd=self.folder,
      capture_output=True,
      text=True,
      timeout=train_process.TIMEOUT,
    )
    self.assertEqual(stuck.returncode, 7, stuck.stderr[-2000:])
    line = stuck.stderr.splitlines()[-1]
    self.assertRegex(line, 'no step for [0-9]+ s; the last was 12, in training')
    self.assertIn('in stuck_inputs', stuck.stderr)
    self.assertEqual(train_process.rows(self.folder / 'stuck', 'train')[-1]['step'], 10)


if __name__ == '__main__':
  absltest.main()
