"""The watchdog in processes of its own: what stalls is ended, what moves or was stopped is not."""

import signal
import subprocess
import sys
import time

from absl.testing import absltest, parameterized

from bitnet_jax import errors
from bitnet_jax.distributed import heartbeat
from tests.helpers import train_process

START = 'import time\nfrom bitnet_jax.runtime import watchdog\nwatchdog._PATIENT = 40\n'
# What JAX would do at exit, where a program with effects waits for a lost process.
WAITS_AT_EXIT = 'import atexit, time; atexit.register(time.sleep, 1000)'
# The first wait, which compiles, and waits up to the limit are let through; then it stalls.
STALLS = f"""{START}
{WAITS_AT_EXIT}
watch = watchdog.Watchdog(0.5)
time.sleep(1)
watch.report('in training', 6)
time.sleep(1)
for step in range(7, 10):
  watch.report('in training', step)
  time.sleep(0.01)
print('waits')
time.sleep(60)
"""
# A step that takes long allows for others that do, so does the first; another phase has its own.
MOVES = f"""{START}
with watchdog.Watchdog(0.5) as watch:
  for step in (1, 2):
    watch.report('in training', step)
  watch._longest['in training'] = 0.3
  for wait in (2, 0.1):
    time.sleep(wait)
    watch.report('in training', step)
  watch.report('in an evaluation')
  time.sleep(1)
  watch.report('')
  time.sleep(1)
with watchdog.Watchdog(0.5) as watch:
  for wait in (2, 2, 0):
    watch.report('in training', 1)
    time.sleep(wait)
with watchdog.Watchdog(0) as watch:
  for step in range(3):
    watch.report('in training', step)
  time.sleep(1)
watchdog._PATIENT = 8
with watchdog.Watchdog(0.25) as watch:
  watch.report(watchdog.STARTING)  # Alone, it may take any time.
  time.sleep(3)
  for _ in range(3):  # Storage may take long, and not the first time alone.
    watch.report('in training', 1)
    watch.report(watchdog.SAVING)
    time.sleep(1)
print('through')
"""
# In a cluster, what comes before the first step is watched, too.
STALLS_AT_START = f"""
import time
from bitnet_jax.runtime import watchdog
watchdog._PATIENT = 4
{WAITS_AT_EXIT}
class Peers:
  def fault(self, now): pass
  def stalled(self, step): return '; process 1 is behind'
  def report(self, step): pass
  def announce_exit(self, line): print('told:', line)
watch = watchdog.Watchdog(0.5)
watch.watch(Peers())
for _ in range(2):
  time.sleep(1)
  watch.report(watchdog.STARTING)
print('waits')
time.sleep(60)
"""
STOPPED = f"""{START}
watchdog._STOPPED = 1
with watchdog.Watchdog(5) as watch:
  for step in (1, 2):
    watch.report('in training', step)
  print('waits', flush=True)
  input()
  watch.report('in training', 3)
print('through')
"""
# Its error stands on stderr already.
ENDS = f"""
from bitnet_jax.distributed import cluster
{WAITS_AT_EXIT}
class Pulse:
  def announce_exit(self, line):
    print('told:', line)
cluster._heartbeat = Pulse()
print('said')
cluster.end(7, 'bitnet_jax: error: process=1: lost; run again')
"""
# A run that reads no batch any more.
STUCK = """
import sys, time
from bitnet_jax.runtime import cli
from bitnet_jax.distributed import cluster
from bitnet_jax.data import pipeline
from bitnet_jax import main
from bitnet_jax.runtime import watchdog
watchdog._PATIENT = 1000
open_training = pipeline.open_training
def open_stuck(*arguments):
  data = open_training(*arguments)
  inputs = data.inputs
  def stuck_inputs(number):
    if number == 12:
      time.sleep(1000)
    return inputs(number)
  data.inputs = stuck_inputs
  return data
pipeline.open_training = open_stuck
cli.run(main.main, ['main', *sys.argv[1:]], end=cluster.end)
"""


def run(program, **options):
  return subprocess.Popen(
    [sys.executable, '-c', program],
    env={**train_process.environment(1), 'PYTHONUNBUFFERED': ''},  # What is printed is held back.
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    **options,
  )


class WatchdogTest(absltest.TestCase):
  def test_ends_what_stalls_with_stacks_and_one_line(self):
    process = run(STALLS)
    stdout, stderr = process.communicate(timeout=60)
    self.assertEqual((process.returncode, stdout), (7, 'waits\n'), stderr)
    *stacks, line = stderr.splitlines()
    self.assertRegex(
      line,
      'bitnet_jax: error: config.watch.stall_seconds=0.5: no step for [0-9]+ s; the last was 9, '
      'in training; the stacks of all threads are above; run the command again to go on',
    )
    self.assertIn('  File "<string>", line 14 in <module>', stacks)

  def test_ends_a_cluster_that_does_not_come_to_its_first_step(self):
    process = run(STALLS_AT_START)
    stdout, stderr = process.communicate(timeout=60)
    self.assertEqual(process.returncode, 7, stderr)
    self.assertStartsWith(stdout, 'waits\ntold: ')
    line = 'no step for [0-9]+ s; the last was 0, at the start; process 1 is behind; the stacks'
    self.assertRegex(stderr.splitlines()[-1], line)

  def test_member_of_a_cluster_ends_at_once_with_what_it_printed(self):
    process = run(ENDS)
    stdout, stderr = process.communicate(timeout=60)
    self.assertEqual((process.returncode, stderr), (7, ''))
    self.assertEqual(stdout, 'said\ntold: process=1: lost; run again\n')

  def test_lets_through_what_moves(self):
    process = run(MOVES)
    stdout, stderr = process.communicate(timeout=60)
    self.assertEqual((process.returncode, stdout, stderr), (0, 'through\n', ''))

  def test_time_while_stopped_does_not_count(self):
    """As by Ctrl-Z, or a machine that slept."""
    process = run(STOPPED, stdin=subprocess.PIPE)
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


class PulseTest(parameterized.TestCase):
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

  def test_error_of_another_is_told_and_a_third_ones_fault_passed_on(self):
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
    arguments = train_process.command(
      self.folder / 'stuck', self.data_dir, {'watch.stall_seconds': 4}
    )[3:]
    stuck = subprocess.run(
      [sys.executable, '-c', STUCK, *arguments],
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
