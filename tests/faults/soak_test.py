"""A long run that is killed or asked to stop every minute: nothing grows, nothing is lost.

`SOAK_MINUTES` sets how long (20).
"""

import os
import pathlib
import signal
import time

import numpy as np
from absl.testing import absltest

from tests import train_process
from tests.faults import process
from tests.faults.process import FOUND

MINUTES = float(os.environ.get('SOAK_MINUTES', '20'))
EVERY = 60.0  # Seconds between two faults.
FIELDS = {'num_epochs': 3000, 'checkpoint.every_steps': 20, 'log.tensorboard': True}


def usage(pid):
  """Resident MB, threads and open files of a process."""
  lines = pathlib.Path(f'/proc/{pid}/status').read_text().splitlines()
  status = dict(line.split(':', 1) for line in lines)
  files = len(os.listdir(f'/proc/{pid}/fd'))
  return int(status['VmRSS'].split()[0]) / 1024, int(status['Threads']), files


class SoakTest(process.FaultCase):
  def live(self, workdir, number):
    """One life of the run: samples while it trains, and the seconds from fault to exit."""
    run = self.start(workdir, **FIELDS)
    self.wait_for(run, ' images/s')  # On a busy machine it may take its time to come so far.
    ends = max(run.started + EVERY, time.monotonic() + EVERY / 2)
    samples = []
    while time.monotonic() < ends:
      self.assertIsNone(run.poll(), self.text(run)[-2000:])
      samples.append(usage(run.pid))
      time.sleep(1)
    run.send_signal(number)
    code = 75 if number == signal.SIGTERM else -signal.SIGKILL
    return samples, self.ends(run, code)

  def test_soak(self):
    workdir = self.folder / 'soak'
    lives, waits, ends = [], [], time.monotonic() + MINUTES * 60
    while time.monotonic() < ends:
      number = (signal.SIGKILL, signal.SIGTERM)[len(waits) % 2]
      samples, wait = self.live(workdir, number)
      lives.append(samples)
      waits.append(wait)
    rows = train_process.rows(workdir, 'train')
    self.assertEqual([row['step'] for row in rows], list(range(1, len(rows) + 1)))
    self.assertGreater(len(rows), 5 * len(lives))
    last = np.array([samples[-1] for samples in lives])
    within = [samples[-1][0] - samples[len(samples) // 2][0] for samples in lives]
    steps = (workdir / 'checkpoints').iterdir()
    text = (
      f'{len(waits)} faults, {len(rows)} steps; at the end of a life: memory '
      f'{last[:, 0].min():.0f} to {last[:, 0].max():.0f} MB (over the second half of it '
      f'{np.mean(within):+.1f} MB), threads {last[:, 1].min():.0f} to {last[:, 1].max():.0f}, '
      f'files {last[:, 2].min():.0f} to {last[:, 2].max():.0f}; '
      f'fault to exit {max(waits):.1f} s at most; checkpoints kept {len(list(steps))}'
    )
    FOUND.append((f'soak of {MINUTES:g} minutes', text))
    print(text)
    self.assertLess(np.mean(within), 0.02 * last[:, 0].mean())
    for samples in lives:  # Pools of threads fill up in the first half of a life.
      for column in (1, 2):
        grown = samples[-1][column] - samples[len(samples) // 2][column]
        self.assertLessEqual(grown, 4)


if __name__ == '__main__':
  absltest.main()
