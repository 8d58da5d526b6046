"""Real clusters on this machine: processes of one run, signalled and waited for one by one."""

import pathlib
import socket
import subprocess
import time

from tests.helpers import train_process


def free_port():
  with socket.socket() as probe:
    probe.bind(('127.0.0.1', 0))
    return probe.getsockname()[1]


class Cluster:
  """Processes of one run, two devices each."""

  def __init__(
    self, workdir, data_dir, *, processes=2, absent=(), programs=None, own=None, **fields
  ):
    """Starts all but the absent ones.

    `programs` names those that are run in place of main, by process; `own` are fields of single
    processes.
    """
    self.workdir = pathlib.Path(workdir)
    self.address = f'127.0.0.1:{free_port()}'
    self._logs = self.workdir.parent / f'{self.workdir.name}-{time.monotonic_ns()}'
    self._logs.mkdir()
    self.processes = {}
    for number in range(processes):
      if number in absent:
        continue
      own_fields = {**fields, **(own or {}).get(number, {})}
      program = (programs or {}).get(number)
      command = train_process.command(workdir, data_dir, own_fields, program)
      self.processes[number] = subprocess.Popen(
        [
          *command,
          f'--coordinator_address={self.address}',
          f'--num_processes={processes}',
          f'--process_id={number}',
        ],
        env=train_process.environment(2),
        cwd=self.workdir.parent,
        stdout=(self._logs / f'{number}.out').open('w'),
        stderr=(self._logs / f'{number}.err').open('w'),
      )

  def __enter__(self):
    return self

  def __exit__(self, *_):
    for process in self.processes.values():
      process.kill()
      process.wait()

  def stdout(self, number):
    return (self._logs / f'{number}.out').read_text()

  def stderr(self, number):
    return (self._logs / f'{number}.err').read_text()

  def error_lines(self, number):
    return [line for line in self.stderr(number).splitlines() if 'bitnet_jax: error: ' in line]

  def wait_for(self, marker):
    """Returns when process 0 has printed it."""
    deadline = time.monotonic() + train_process.TIMEOUT
    while marker not in self.stdout(0):
      for number, process in self.processes.items():
        assert process.poll() is None, (number, process.returncode, self.stderr(number)[-3000:])
      assert time.monotonic() < deadline, self.stdout(0)[-2000:]
      time.sleep(0.02)

  def send(self, number, signal):
    self.processes[number].send_signal(signal)

  def wait(self, *numbers):
    """Exit codes of these processes, of all if none are named, and seconds until the last."""
    started = time.monotonic()
    numbers = numbers or tuple(self.processes)
    codes = [self.processes[number].wait(train_process.TIMEOUT) for number in numbers]
    return codes, time.monotonic() - started


class ClusterCase(train_process.DataCase):
  """Prepares the digits; ends all processes of a test with it."""

  def cluster(self, workdir, **fields):
    return self.enterContext(Cluster(workdir, self.data_dir, **fields))

  def assert_ends(self, cluster, number, code, line):
    self.assertEqual(cluster.processes[number].returncode, code, cluster.stderr(number)[-3000:])
    self.assertLen(cluster.error_lines(number), 1, cluster.stderr(number)[-3000:])
    self.assertRegex(cluster.error_lines(number)[0], line)
    self.assertNotIn('Traceback', cluster.stderr(number))
