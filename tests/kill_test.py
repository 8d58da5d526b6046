"""Runs that are killed at random, and go on to the bits and examples of one left alone.

`KILLS` sets how many kills; 10 where it is not given, the run of tests/faults takes 100.
"""

import json
import os
import pathlib
import random
import shutil
import signal
import time

from absl.testing import absltest

from tests.faults import process
from tests.faults.process import FOUND

KILLS = int(os.environ.get('KILLS', '10'))
# The training command, which also writes down what each step is fed: the indices of the examples
# where the data set is resident, a digest of the pixels and labels where it streams in.
RECORDS_EXAMPLES = """
import dataclasses, hashlib, json, os, sys
import jax, numpy as np
from bitnet_jax import cli, feeds, main
opened = feeds.open_training

def open_training(config, source):
  feed = opened(config, source)
  steps_per_epoch = feed.num_batches

  def inputs_of(number):
    inputs = feed.inputs_of(number)
    if 'order' in inputs:
      seen = np.asarray(inputs['order'])[:, number % steps_per_epoch].ravel().tolist()
    else:
      parts = [np.asarray(inputs[name]).tobytes() for name in ('image', 'label')]
      seen = hashlib.sha256(b''.join(parts)).hexdigest()
    with open(os.environ['EXAMPLES'], 'a') as file:
      file.write(json.dumps([number, seen]) + chr(10))
    return inputs

  return dataclasses.replace(feed, inputs_of=inputs_of)

feeds.open_training = open_training
cli.run(main.main, ['main', *sys.argv[1:]])
"""


def examples(path):
  """What each step was fed, by step; every time it was fed, it has to be the same."""
  fed = {}
  for line in path.read_text().splitlines():
    try:
      number, seen = json.loads(line)
    except ValueError:
      continue  # Cut short by a kill.
    assert fed.setdefault(number, seen) == seen, f'step {number} was fed other examples'
  return fed


class RecordedCase(process.FaultCase):
  """Runs that write down what each step was fed, in WORKDIR.examples."""

  def recorded(self, workdir, **options):
    variables = {'EXAMPLES': str(workdir) + '.examples', **options.pop('variables', {})}
    return self.start(workdir, program=RECORDS_EXAMPLES, variables=variables, **options)

  def fed_reference(self, **fields):
    workdir = self.folder / f'fed-{len(fields)}'
    if not workdir.exists():
      self.ends(self.recorded(workdir, **fields), 0)
    return workdir

  def assertSameExamples(self, workdir, reference):
    pair = [examples(pathlib.Path(f'{path}.examples')) for path in (workdir, reference)]
    self.assertEqual(*pair)


class KillTest(RecordedCase):
  def test_random_kills(self):
    """Each run is killed again and again, at a random time after its start, until it is done."""
    reference = self.fed_reference()
    numbers = random.Random(KILLS)
    killed, runs, longest = 0, 0, 0.0
    while killed < KILLS:
      workdir = self.folder / f'killed-{runs}'
      runs += 1
      while killed < KILLS:
        run = self.recorded(workdir)
        delay = numbers.uniform(0, 3)
        if numbers.random() < 0.8:  # Most of the time it imports and compiles: wait for steps.
          while run.poll() is None and 'step' not in self.text(run).partition('training images')[2]:
            time.sleep(0.01)
        if run.poll() is None:
          time.sleep(delay)
        run.send_signal(signal.SIGKILL)
        at = time.monotonic()
        run.wait()
        longest = max(longest, time.monotonic() - at)
        if run.returncode == 0:
          break
        killed += 1
      rest = self.recorded(workdir)
      self.ends(rest, 0)
      self.assertSameRun(workdir, reference)
      self.assertSameExamples(workdir, reference)
      shutil.rmtree(workdir)
      pathlib.Path(f'{workdir}.examples').unlink()
    FOUND.append(('kill -9 at a random time', f'{killed} of {killed} survived in {runs} runs'))


if __name__ == '__main__':
  absltest.main()
