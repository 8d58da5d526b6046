"""Runs that are killed at random, and go on to the bits and examples of one left alone.

`KILLS` sets how many kills; 4 where it is not given, the run of tests/faults takes 100.
"""

import os
import pathlib
import random
import re
import shutil
import signal
import time

from absl.testing import absltest

from tests.helpers import recorded_run, train_process
from tests.helpers.faults import FOUND

INTERVAL = train_process.SMALL['checkpoint.every_steps']
KILLS = int(os.environ.get('KILLS', '4'))


def first_and_last_step(text):
  """Steps taken before a run and at its last line; None where it took none and resumed nothing."""
  resumed = re.search(r'resumed from step (\d+)', text)
  logged = re.findall(r'  step (\d+)/', text)
  if not resumed and not logged:
    return None
  first = int(resumed[1]) if resumed else 0
  return first, int(logged[-1]) if logged else first


class KillTest(recorded_run.RecordedCase):
  def lost_steps(self, run, reached):
    """Steps that this run took again, at most one interval and those of the save under way.

    Args:
      run: it has ended.
      reached: the last step that the runs before it are known to have taken.

    Returns:
      Steps lost, 0 if the run did not come so far as to tell; and what is reached now.
    """
    steps = first_and_last_step(self.text(run))
    if steps is None:
      return 0, reached
    self.assertLessEqual(reached - steps[0], 2 * INTERVAL, f'{reached} steps were taken before')
    return max(0, reached - steps[0]), max(reached, steps[1])

  def test_random_kills(self):
    """Each run is killed again and again, at a random time after its start, until it is done."""
    reference = self.recorded_reference()
    numbers = random.Random(KILLS)
    killed, runs, longest, most_lost = 0, 0, 0.0, 0
    while killed < KILLS:
      workdir = self.folder / f'killed-{runs}'
      runs += 1
      reached = 0
      while killed < KILLS:
        run = self.recorded(workdir)
        delay = numbers.uniform(0, 3)
        # The last kill comes late enough to tell whether anything was ever saved.
        late = killed == KILLS - 1 and reached <= 2 * INTERVAL
        shown = f'step {2 * INTERVAL + 1}/' if late else 'step'
        if late or numbers.random() < 0.8:  # Mostly it imports and compiles: wait for steps.
          while run.poll() is None and shown not in self.text(run).partition('training images')[2]:
            time.sleep(0.01)
        if run.poll() is None:
          time.sleep(delay)
        run.send_signal(signal.SIGKILL)
        at = time.monotonic()
        run.wait()
        longest = max(longest, time.monotonic() - at)
        lost, reached = self.lost_steps(run, reached)
        most_lost = max(most_lost, lost)
        if run.returncode == 0:
          break
        killed += 1
      rest = self.recorded(workdir)
      self.ends(rest, 0)
      most_lost = max(most_lost, self.lost_steps(rest, reached)[0])
      self.assertSameRun(workdir, reference)
      self.assertSameExamples(workdir, reference)
      shutil.rmtree(workdir)
      pathlib.Path(f'{workdir}.examples').unlink()
    text = f'{killed} of {killed} survived in {runs} runs, {most_lost} steps were lost at most'
    FOUND.append(('kill -9 at a random time', text))


if __name__ == '__main__':
  absltest.main()
