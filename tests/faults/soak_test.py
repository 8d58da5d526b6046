"""A long run that is killed or asked to stop every minute: nothing grows, nothing is lost.

`SOAK_MINUTES` sets how long (20).
"""

import os
import pathlib
import signal
import time

import numpy as np
from absl.testing import absltest

from tests.helpers import faults, train_process
from tests.helpers.faults import FOUND

MINUTES = float(os.environ.get('SOAK_MINUTES', '20'))
EVERY = 60.0  # Seconds between two faults.
LEAST = 20.0  # Seconds of training in a life, on a machine so busy that a start takes most of them.
KEEP_LATEST, KEEP_BEST = 2, 1
FIELDS = {
  'num_epochs': 3000,
  'checkpoint.every_steps': 20,
  'checkpoint.keep_latest': KEEP_LATEST,
  'checkpoint.keep_best': KEEP_BEST,
  'log.tensorboard': True,
}
ROW_BYTES = 1500  # Of a row of metrics and its events, which are all that may grow.


def usage(pid):
  """Resident MB, threads and open files of a process."""
  lines = pathlib.Path(f'/proc/{pid}/status').read_text().splitlines()
  status = dict(line.split(':', 1) for line in lines)
  files = len(os.listdir(f'/proc/{pid}/fd'))
  return int(status['VmRSS'].split()[0]) / 1024, int(status['Threads']), files


def size(folder):
  """Bytes of all files under a folder that no process writes to."""
  return sum(path.stat().st_size for path in folder.rglob('*') if path.is_file())


def growth(samples, column):
  """From the second third of a life to its last, of the least: a save opens files for a while."""
  third = len(samples) // 3
  second, last = samples[third:-third], samples[-third:]
  return min(sample[column] for sample in last) - min(sample[column] for sample in second)


class SoakTest(faults.FaultCase):
  def live(self, workdir, number, due):
    """One life of the run, to the fault that is due: samples, seconds from fault to exit."""
    run = self.start(workdir, **FIELDS)
    self.wait_for(run, ' images/s')  # On a busy machine it may take its time to come so far.
    due = max(due, time.monotonic() + LEAST)
    samples = []
    while time.monotonic() < due:
      self.assertIsNone(run.poll(), self.text(run)[-2000:])
      samples.append(usage(run.pid))
      time.sleep(min(1.0, max(0.0, due - time.monotonic())))
    run.send_signal(number)
    code = 75 if number == signal.SIGTERM else -signal.SIGKILL
    return samples, self.ends(run, code)

  def check_size(self, workdir, number):
    """What is kept after a life, and that nothing else has grown; gives the bytes of it all."""
    kept = [path.name for path in (workdir / 'checkpoints').iterdir()]
    killed = number == signal.SIGKILL
    # A run that was killed may leave the step that it was writing, and one that it was deleting.
    self.assertLessEqual(len(kept), KEEP_LATEST + KEEP_BEST + 2 * killed)
    if not killed:
      whole = [path.stem for path in (workdir / 'manifests').glob('*.json')]
      self.assertCountEqual(kept, whole)
    # Nothing is damaged; a step that was killed between its last rename and its manifest is there.
    self.assertEmpty(list(workdir.glob('damaged/*.json')))
    checkpoints = len(kept) + len(list(workdir.glob('damaged/*')))
    largest = max(size(workdir / 'checkpoints' / name) for name in kept)
    rows = len((workdir / 'metrics.jsonl').read_bytes().splitlines())
    total = size(workdir)
    self.assertLess(total, checkpoints * largest + rows * ROW_BYTES + 2**20)
    return total

  def test_soak(self):
    workdir = self.folder / 'soak'
    lives, waits, sizes, begins = [], [], [], time.monotonic()
    while time.monotonic() < begins + MINUTES * 60 - 1:
      number = (signal.SIGKILL, signal.SIGTERM)[len(waits) % 2]
      samples, wait = self.live(workdir, number, begins + EVERY * (len(waits) + 1))
      lives.append(samples)
      waits.append(wait)
      sizes.append(self.check_size(workdir, number))
    rows = train_process.rows(workdir, 'train')
    self.assertEqual([row['step'] for row in rows], list(range(1, len(rows) + 1)))
    self.assertGreater(len(rows), 5 * len(lives))
    last = np.array([samples[-1] for samples in lives])
    within = [growth(samples, 0) for samples in lives]
    steps = (workdir / 'checkpoints').iterdir()
    aside = len(list(workdir.glob('damaged/*')))
    minutes = (time.monotonic() - begins) / 60
    text = (
      f'{len(waits)} faults in {minutes:.1f} minutes, {len(rows)} steps; '
      f'at the end of a life: memory '
      f'{last[:, 0].min():.0f} to {last[:, 0].max():.0f} MB (over the last third of it '
      f'{np.mean(within):+.1f} MB), threads {last[:, 1].min():.0f} to {last[:, 1].max():.0f}, '
      f'files {last[:, 2].min():.0f} to {last[:, 2].max():.0f}; '
      f'fault to exit {max(waits):.1f} s at most; checkpoints kept {len(list(steps))}, set aside '
      f'{aside}; work directory {sizes[0] / 1e6:.1f} MB after the first life, '
      f'{sizes[-1] / 1e6:.1f} MB after the last'
    )
    FOUND.append((f'soak of {MINUTES:g} minutes', text))
    print(text)
    self.assertLess(np.mean(within), 0.02 * last[:, 0].mean())
    for samples in lives:  # Pools of threads fill up in the first third of a life.
      for column in (1, 2):
        series = [sample[column] for sample in samples]
        self.assertLessEqual(growth(samples, column), 4, series)


if __name__ == '__main__':
  absltest.main()
