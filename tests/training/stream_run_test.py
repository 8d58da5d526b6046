"""Real runs whose data streams through worker processes: killed and resumed, and a worker lost."""

import os
import pathlib
import signal
import subprocess
import time

from absl.testing import absltest

from tests.helpers import train_process
from tests.helpers.train_process import TIMEOUT, command, environment, rows

STREAM = {'data.pipeline': 'stream', 'data.workers': 2, 'num_epochs': 1}


def workers_of(pid):
  """Processes that decode for a run."""
  tasks = pathlib.Path(f'/proc/{pid}/task').glob('*/children')  # Of each thread.
  children = [child for task in tasks for child in task.read_text().split()]
  lines = {int(c): pathlib.Path(f'/proc/{c}/cmdline').read_bytes() for c in children}
  return [child for child, line in lines.items() if b'spawn_main' in line]


def shared_memory_of(pids):
  """Blocks that processes have mapped now, by their paths."""
  maps = ''.join(pathlib.Path(f'/proc/{pid}/maps').read_text() for pid in map(str, pids))
  return {line.split()[-1] for line in maps.splitlines() if '/dev/shm/psm_' in line}


class StreamRunTest(train_process.TrainCase):
  FIELDS = STREAM

  def start(self, workdir, **fields):
    """A run that has saved step 5, with its workers."""
    process = subprocess.Popen(
      command(workdir, self.data_dir, {**STREAM, **fields}),
      env=environment(1),
      cwd=self.folder,
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
      text=True,
    )
    self.addCleanup(process.stderr.close)
    self.addCleanup(process.kill)
    deadline = time.monotonic() + TIMEOUT
    while not (workdir / 'manifests' / '5.json').exists():
      self.assertIsNone(process.poll(), 'ended by itself')
      self.assertLess(time.monotonic(), deadline)
      time.sleep(0.01)
    workers = workers_of(process.pid)
    self.assertGreaterEqual(len(workers), 2)
    self.blocks = shared_memory_of([process.pid, *workers])
    return process, workers

  def assertNothingLeft(self, process, workers):
    """Neither a process nor memory; both end by themselves soon after the run."""
    self.assertIsNotNone(process.poll())
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
      left = [p for p in workers if os.path.exists(f'/proc/{p}')]
      left += [block for block in self.blocks if os.path.exists(block)]
      if not left:
        break
      time.sleep(0.1)
    self.assertEqual(left, [])

  def test_killed_run_goes_on_with_other_workers(self):
    workdir = self.folder / 'killed'
    process, workers = self.start(workdir)
    process.send_signal(signal.SIGKILL)
    process.wait()
    self.assertNothingLeft(process, workers)
    done = self.run_main(workdir, **{**STREAM, 'data.workers': 1})
    self.assertRegex(done.stdout, r'resumed from step ([5-9]|1\d|2[0-2])')
    self.assertEqual(rows(workdir), rows(self.whole))
    self.assertSameState(workdir, self.whole)

  def test_lost_worker_ends_the_run_in_one_line(self):
    process, workers = self.start(self.folder / 'lost', num_epochs=500)
    os.kill(workers[0], signal.SIGKILL)
    said = process.communicate(timeout=TIMEOUT)[1]
    self.assertEqual(process.returncode, 7, said)
    self.assertEqual(
      said,
      'bitnet_jax: error: config.data.workers=2: worker process was terminated unexpectedly with '
      'exit code -9; run again to go on, with fewer workers if memory ran out\n',
    )
    self.assertNothingLeft(process, workers)


if __name__ == '__main__':
  absltest.main()
