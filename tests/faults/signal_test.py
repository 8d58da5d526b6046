"""SIGTERM in each phase of a run, and workers that die or stop."""

import json
import os
import pathlib
import signal
import time

from absl.testing import absltest, parameterized

from bitnet_jax.checkpoints import manifest, orbax_options, pretrained
from tests.helpers import faults
from tests.helpers.faults import FOUND
from tests.helpers.train_process import saved_step


def children(pid):
  paths = pathlib.Path(f'/proc/{pid}/task').glob('*/children')
  return [int(child) for path in paths for child in path.read_text().split()]


class SignalTest(faults.FaultCase, parameterized.TestCase):
  def stopped(self, run, workdir, step=None):
    """Asks the run to stop, which saves; gives the step and the seconds that it took."""
    run.send_signal(signal.SIGTERM)
    took = self.ends(run, 75)
    saved = saved_step(self.text(run), workdir)
    self.assertEqual(saved, step or saved)
    return saved, took

  def goes_on(self, workdir, step):
    """The run goes on from that step to the bits of one that nothing disturbed."""
    text = self.completes(workdir)
    self.assertEqual(f'resumed from step {step}, ' in text, bool(step), text[-2000:])
    self.assertSameRun(workdir, self.reference())

  def slow(self, workdir, module, function):
    """Starts a run that waits where this function has been called."""
    variables = {'MODULE': module, 'FUNCTION': function}
    return self.start(workdir, program='slow_phase', variables=variables)

  @parameterized.parameters(
    ('data start', 'data.pipeline', 'open_training'),
    ('initialization', 'training.steps', 'create_state'),
  )
  def test_before_the_first_step(self, phase, module, function):
    workdir = self.folder / phase.replace(' ', '-')
    run = self.slow(workdir, module, function)
    self.wait_for(run, 'PHASE')
    run.send_signal(signal.SIGTERM)
    took = self.ends(run, 75, 'step=0: asked to stop; run the command again')
    self.assertEmpty(list((workdir / 'checkpoints').glob('*')))
    self.goes_on(workdir, 0)
    FOUND.append((f'SIGTERM in {phase}', f'exit 75 after {took:.1f} s, same bits'))

  @parameterized.parameters(
    # Each the first of its kind: at the end of an epoch, and in the step after the one it saves.
    ('evaluation', 'training.evaluation', 'summarize', 22),
    ('save', 'checkpoints.manager', 'Checkpoints.save', 6),
  )
  def test_between_steps(self, phase, module, function, step):
    workdir = self.folder / phase
    run = self.slow(workdir, module, function)
    self.wait_for(run, 'PHASE')
    _, took = self.stopped(run, workdir, step)
    self.goes_on(workdir, step)
    FOUND.append((f'SIGTERM in {phase}', f'exit 75 after {took:.1f} s, same bits'))

  def test_restore(self):
    workdir = self.folder / 'restore'
    run = self.start(workdir)
    self.wait_for(run, 'step 12/66')
    step, _ = self.stopped(run, workdir)
    # Between the record of the checkpoint and its arrays.
    run = self.slow(workdir, 'checkpoints.manager', 'Checkpoints.read_record')
    self.wait_for(run, 'PHASE')
    run.send_signal(signal.SIGTERM)
    took = self.ends(run, 75, f'step={step}: asked to stop; run the command again')
    self.goes_on(workdir, step)
    FOUND.append(('SIGTERM in restore', f'exit 75 after {took:.1f} s, same bits'))

  def test_compile(self):
    workdir = self.folder / 'compile'
    # A cache of its own, in which the step is not yet.
    cache = {'JAX_COMPILATION_CACHE_DIR': str(self.folder / 'empty-cache')}
    run = self.start(workdir, program='signaled_in_compile', variables=cache)
    self.wait_for(run, 'COMPILED after SIGTERM')
    took = self.ends(run, 75)
    self.assertEqual(saved_step(self.text(run), workdir), 1)
    self.goes_on(workdir, 1)
    text = f'exit 75 {took:.1f} s after the compilation, with one step, same bits'
    FOUND.append(('SIGTERM in compile', text))

  def test_training(self):
    workdir = self.folder / 'training'
    run = self.start(workdir)
    self.wait_for(run, 'step 30/66')
    step, took = self.stopped(run, workdir)
    self.assertGreaterEqual(step, 30)
    self.goes_on(workdir, step)
    FOUND.append(('SIGTERM in training', f'exit 75 after {took:.1f} s, same bits'))

  def test_stopped_evaluation_counts_once_repeated(self):
    # Step 22 is saved whether or not the second signal comes before it is.
    fields = {'eval.batch_size': 1, 'checkpoint.every_steps': 11}
    workdir = self.folder / 'stopped-evaluation'
    errors = []
    for marker in ('step 22/66', 'test loss'):
      run = self.start(workdir, **fields)
      self.wait_for(run, marker)
      run.send_signal(signal.SIGTERM)
      self.ends(run, 75, 'asked to stop')
      metrics = workdir / 'checkpoints' / '22' / 'metrics' / 'metrics'
      errors.append(json.loads(metrics.read_text())['error'])
    self.assertEqual(errors[0], orbax_options.NOT_EVALUATED)
    self.assertLess(errors[1], 1)

  def signalled_in_save(self, workdir, last, count):
    """A run that got so many signals, one after the other, in the middle of writing step 10."""
    variables = {'LAST': last, 'GO_ON': f'{workdir}.go-on'}
    run = self.start(workdir, program='blocked_save', variables=variables)
    self.wait_for(run, 'WRITES')
    for said in ('saving and stopping', 'once more aborts', '')[:count]:
      run.send_signal(signal.SIGTERM)
      self.wait_for(run, said)
    return run

  def test_second_signal_spares_the_save(self):
    workdir = self.folder / 'signals-2'
    run = self.signalled_in_save(workdir, '/checkpoints/10', 2)
    self.assertFalse((workdir / 'checkpoints' / '10').exists())
    pathlib.Path(f'{workdir}.go-on').touch()
    self.ends(run, 75)
    step = saved_step(self.text(run), workdir)
    self.assertGreater(step, 10)
    self.assertTrue((workdir / 'manifests' / '10.json').exists())
    self.goes_on(workdir, step)
    FOUND.append(('two signals in the middle of a save', 'exit 75, saved, same bits'))

  @parameterized.parameters('/checkpoints/10', '/manifests/10.json')
  def test_third_signal_leaves_the_step_before_whole(self, last):
    workdir = self.folder / f'signals-3{last.replace("/", "-")}'
    run = self.signalled_in_save(workdir, last, 3)
    run.wait(faults.TIMEOUT)
    self.assertEqual(run.returncode, 128 + signal.SIGTERM, self.text(run)[-2000:])
    # Step 10 was written, but for its last name.
    self.assertFalse(pathlib.Path(f'{workdir}{last}').exists())
    self.assertNotEmpty(list((workdir / 'checkpoints').glob('10*')))
    self.assertEqual(
      manifest.find_fault(workdir / 'checkpoints/5', workdir / 'manifests/5.json'), ''
    )
    self.assertEqual(pretrained.load(str(workdir)).step, 5)
    self.goes_on(workdir, 5)
    FOUND.append((f'three signals before {last}', 'exit 143, on from the step before, same bits'))

  def stream(self, name, number, timeout_seconds):
    """A run whose examples stream in, and whose workers were sent a signal."""
    fields = {'data.pipeline': 'stream', 'data.workers': 1, 'num_epochs': 200}
    workdir = self.folder / f'{name}-{number}'
    run = self.start(workdir, **fields, **{'data.timeout_seconds': timeout_seconds})
    self.wait_for(run, workdir / 'manifests' / '5.json')
    workers = [
      child
      for child in children(run.pid)
      if b'spawn_main' in pathlib.Path(f'/proc/{child}/cmdline').read_bytes()
    ]
    self.assertNotEmpty(workers)
    for worker in workers:
      os.kill(worker, number)
    return run

  def test_asked_to_stop_while_its_workers_hang(self):
    run = self.stream('hangs', signal.SIGSTOP, 120)
    time.sleep(3)  # What was read ahead is used up.
    run.send_signal(signal.SIGTERM)
    started = time.monotonic()
    self.ends(run, 75, r'step=[0-9]+: asked to stop; saved in ')
    took = time.monotonic() - started
    self.assertLess(took, 60)
    FOUND.append(('SIGTERM while all workers hang', f'exit 75 after {took:.1f} s'))

  @parameterized.parameters(
    (signal.SIGKILL, 'terminated unexpectedly'), (signal.SIGSTOP, 'no batch')
  )
  def test_worker(self, number, line):
    run = self.stream('worker', number, 20)
    took = self.ends(run, 7, f'config.data.workers=1: .*{line}.*; ')
    FOUND.append((f'worker gets {signal.Signals(number).name}', f'exit 7 after {took:.1f} s'))


if __name__ == '__main__':
  absltest.main()
