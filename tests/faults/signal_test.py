"""SIGTERM in each phase of a run, and workers that die or stop."""

import json
import os
import pathlib
import signal
import time

from absl.testing import absltest, parameterized

from bitnet_jax import checkpoint
from tests.faults import process
from tests.faults.process import FOUND

# Tells on stderr that a phase has begun, and waits there long enough to be found.
SLOW = """
import sys, time
from bitnet_jax import cli, errors, main
from bitnet_jax.checkpoint import Checkpoints
import bitnet_jax.{module} as module
real = {target}
def slow(*arguments, **options):
  result = real(*arguments, **options)
  print('PHASE', file=sys.stderr, flush=True)
  time.sleep(1)
  return result
{target} = slow
cli.run(main.main, ['main', *sys.argv[1:]])
"""


def children(pid):
  paths = pathlib.Path(f'/proc/{pid}/task').glob('*/children')
  return [int(child) for path in paths for child in path.read_text().split()]


class SignalTest(process.FaultCase, parameterized.TestCase):
  @parameterized.parameters(
    ('data start', 'feeds', 'module.open_training', 0),
    ('initialisation', 'steps', 'module.create_state', 0),
    ('restore', 'resume', 'module.restore', 0),
    ('evaluation', 'evaluation', 'module.summarize', 1),
    ('save', 'checkpoint', 'Checkpoints.save', 1),
  )
  def test_phase(self, phase, module, target, saved):
    workdir = self.folder / phase.replace(' ', '-')
    program = SLOW.format(module=module, target=target)
    run = self.start(workdir, program=program)
    self.wait_for(run, 'PHASE')
    run.send_signal(signal.SIGTERM)
    took = self.ends(run, 75, 'step=[0-9]+: asked to stop.*; run the command again')
    steps = list((workdir / 'checkpoints').glob('*')) if saved else []
    self.assertEqual(bool(steps), bool(saved))
    self.completes(workdir)
    self.assertSameRun(workdir, self.reference())
    FOUND.append((f'SIGTERM in {phase}', f'exit 75 after {took:.1f} s, same bits'))

  @parameterized.parameters(('compile', 'training images'), ('training', 'step 30/66'))
  def test_marker(self, phase, marker):
    workdir = self.folder / phase
    run = self.start(workdir)
    self.wait_for(run, marker)
    run.send_signal(signal.SIGTERM)
    took = self.ends(run, 75, 'step=[0-9]+: asked to stop(; saved in .*)?; run the command again')
    self.completes(workdir)
    self.assertSameRun(workdir, self.reference())
    FOUND.append((f'SIGTERM in {phase}', f'exit 75 after {took:.1f} s, same bits'))

  def test_stopped_evaluation_counts_for_the_best_once_it_is_made_up_for(self):
    workdir, fields = self.folder / 'stopped-evaluation', {'eval.batch_size': 1}
    errors = []
    for marker in ('step 22/66', 'test loss'):
      run = self.start(workdir, **fields)
      self.wait_for(run, marker)
      run.send_signal(signal.SIGTERM)
      self.ends(run, 75, 'asked to stop')
      metrics = workdir / 'checkpoints' / '22' / 'metrics' / 'metrics'
      errors.append(json.loads(metrics.read_text())['error'])
    self.assertEqual(errors[0], checkpoint.NOT_EVALUATED)
    self.assertLess(errors[1], 1)

  def test_second_signal_spares_the_save_and_third_aborts(self):
    for count, code in ((2, 75), (3, 128 + signal.SIGTERM)):
      workdir = self.folder / f'signals-{count}'
      run = self.start(workdir, program=SLOW.format(module='steps', target='Checkpoints.save'))
      self.wait_for(run, 'PHASE')
      for _ in range(count):
        run.send_signal(signal.SIGTERM)
        time.sleep(0.1)
      run.wait(process.TIMEOUT)
      self.assertEqual(run.returncode, code, self.text(run)[-2000:])
      self.completes(workdir)
      self.assertSameRun(workdir, self.reference())
    FOUND.append(('two signals while saving; three', 'exit 75; exit 143; same bits after both'))

  @parameterized.parameters(
    (signal.SIGKILL, 'terminated unexpectedly'), (signal.SIGSTOP, 'no batch')
  )
  def test_worker(self, number, line):
    fields = {'data.pipeline': 'stream', 'data.workers': 1, 'num_epochs': 200}
    fields['data.timeout_seconds'] = 20
    workdir = self.folder / f'worker-{number}'
    run = self.start(workdir, **fields)
    self.wait_for(run, workdir / 'manifests' / '5.json')
    workers = [
      child
      for child in children(run.pid)
      if b'spawn_main' in pathlib.Path(f'/proc/{child}/cmdline').read_bytes()
    ]
    self.assertNotEmpty(workers)
    for worker in workers:
      os.kill(worker, number)
    took = self.ends(run, 7, f'config.data.workers=1: .*{line}.*; ')
    FOUND.append((f'worker gets {signal.Signals(number).name}', f'exit 7 after {took:.1f} s'))


if __name__ == '__main__':
  absltest.main()
