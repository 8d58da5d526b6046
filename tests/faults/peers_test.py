"""Processes of a run killed, stopped, stuck, absent or at odds: all end in time with one line.

Prints the seconds from each fault to the last exit, for the table in README.md.
"""

import json
import os
import signal
import subprocess
import time

import numpy as np
from absl.testing import absltest, parameterized

from tests.helpers import train_process
from tests.helpers.cluster_process import ClusterCase

FIELDS = {
  'num_epochs': 20,
  'model.batch_norm_group': 16,
  'checkpoint.every_steps': 5,
  'eval.every_epochs': 5,
  'watch.peer_seconds': 15,
}
PEER = '(process=[01]: (lost|it ended)|coordinator_address=.*: process 0.* was lost after step)'
KILLS = 10
# Seconds beside the limits that are configured: a process starts in ten on an idle machine.
MARGIN = 30


class PeersTest(ClusterCase, parameterized.TestCase):
  def cluster(self, name, **fields):
    return super().cluster(self.folder / name, **{**FIELDS, **fields})

  def say(self, what, seconds):
    print(f'{what}: {seconds:.1f} s from the fault to the last exit', flush=True)

  @parameterized.product(name=('SIGKILL', 'SIGSTOP'), victim=(0, 1))
  def test_lost(self, name, victim):
    cluster = self.cluster(f'lost-{name}-{victim}')
    cluster.wait_for('step 12/')
    cluster.send(victim, getattr(signal, name))
    _, seconds = cluster.wait(1 - victim)
    self.say(f'{name} to process {victim}', seconds)
    self.assert_ends(cluster, 1 - victim, 7, PEER)
    self.assertLess(seconds, 60)
    if name == 'SIGSTOP':  # Woken up, it finds the others gone.
      cluster.send(victim, signal.SIGCONT)
      _, seconds = cluster.wait(victim)
      self.assert_ends(cluster, victim, 7, PEER)

  @parameterized.parameters(0, 1)
  def test_stuck(self, victim):
    fields = {'watch.stall_seconds': 20}
    cluster = self.cluster(f'stuck-{victim}', programs={victim: 'stuck_training'}, **fields)
    cluster.wait_for('step 7/')
    _, seconds = cluster.wait()
    self.say(f'process {victim} stuck', seconds)
    self.assertLess(seconds, 20 + FIELDS['watch.peer_seconds'] + MARGIN)
    # Either says it of itself, or tells what the other one, which was first, said of it.
    stalled = r'config.watch.stall_seconds=20: no step for [0-9]+ s; the last was {}, in training'
    own, others = stalled.format(12), stalled.format('1[2-9]')
    behind = rf'{others}; process {victim} is behind, at step 12; the stacks of all threads'
    told = r'process={}: it ended at step {}, this one at {}: {}'
    self.assert_ends(
      cluster, victim, 7, f'error: ({own}|{told.format(1 - victim, "1[2-9]", 12, behind)})'
    )
    self.assert_ends(
      cluster, 1 - victim, 7, f'error: ({behind}|{told.format(victim, 12, "1[2-9]", own)})'
    )
    lines = ''.join(cluster.error_lines(number)[0] for number in (0, 1))
    self.assertIn('error: config.watch.stall_seconds=20: ', lines)
    self.assertIn('in stuck_inputs', cluster.stderr(victim))

  @parameterized.parameters(0, 1)
  def test_absent(self, victim):
    started = time.monotonic()
    fields = {'watch.join_seconds': 10}
    cluster = self.cluster(f'absent-{victim}', absent=(victim,), **fields)
    cluster.wait()
    seconds = time.monotonic() - started
    self.say(f'process {victim} absent, 10 s to join', seconds)
    self.assertBetween(seconds, 10, 10 + MARGIN)
    line = f'coordinator_address={cluster.address}: not all of 2 processes joined within 10 s'
    self.assert_ends(cluster, 1 - victim, 7, line)

  @parameterized.product(number=(signal.SIGTERM, signal.SIGINT), victim=(0, 1))
  def test_asked_to_stop(self, number, victim):
    cluster = self.cluster(f'stop-{number}-{victim}')
    cluster.wait_for('step 12/')
    cluster.send(victim, number)
    codes, seconds = cluster.wait()
    self.say(f'signal {number} to process {victim}', seconds)
    self.assertEqual(codes, [75, 75])
    steps = {cluster.error_lines(i)[0].partition('step=')[2].partition(':')[0] for i in (0, 1)}
    self.assertLen(steps, 1)
    self.assertTrue((cluster.workdir / 'manifests' / f'{steps.pop()}.json').exists())

  def test_killed_again_and_again_goes_on_bit_for_bit(self):
    fields = {'num_epochs': 1, 'checkpoint.every_steps': 2, 'watch.peer_seconds': 15}
    whole = self.cluster('whole', **fields)
    self.assertEqual(whole.wait()[0], [0, 0])
    rng = np.random.default_rng(0)
    for kill in range(KILLS):
      cluster = self.cluster('killed', **fields)
      victim = kill % 2
      deadline = time.monotonic() + rng.uniform(3, 15)
      while time.monotonic() < deadline and cluster.processes[victim].poll() is None:
        time.sleep(0.01)
      cluster.send(victim, signal.SIGKILL)
      codes, _ = cluster.wait(1 - victim)
      self.assertIn(codes[0], (0, 7), cluster.stderr(1 - victim)[-2000:])
      if not codes[0]:
        break
    last = self.cluster('killed', **fields)
    self.assertEqual(last.wait()[0], [0, 0], last.stderr(0)[-2000:])
    self.assertEqual(train_process.rows(last.workdir), train_process.rows(whole.workdir))
    self.assertSameState(last.workdir, whole.workdir)

  def test_batch_norm_groups_over_processes_and_stream(self):
    """Every layout and both ways of the data: rounding is all that differs in the first steps."""
    fields = {'model.batch_norm_group': 64, 'num_epochs': 0.25, 'eval.batch_size': 40}
    alone = self.folder / 'group-alone'
    self.run_main(alone, devices=4, **{**FIELDS, **fields})
    want = train_process.rows(alone, 'train')
    for pipeline in ('resident', 'stream'):
      name, ways = f'group-{pipeline}', {'data.pipeline': pipeline, 'data.workers': 1}
      two = self.cluster(name, **fields, **ways)
      self.assertEqual(two.wait()[0], [0, 0], two.stderr(0)[-2000:])
      for a, b in zip(want, train_process.rows(two.workdir, 'train'), strict=True):
        self.assertAlmostEqual(a['loss'], b['loss'], delta=1e-4, msg=pipeline)
      self.assertEqual(json.loads((two.workdir / 'result.json').read_text())['count'], 360)

  def test_refused_or_at_odds_ends_both_processes(self):
    cluster = self.cluster('refused', num_epochs=0.25)
    self.assertEqual(cluster.wait()[0], [0, 0])
    refused = self.cluster('refused', num_epochs=0.25, seed=3)
    refused.wait()
    self.assert_ends(refused, 0, 4, 'config.seed=3: the checkpoint of step 6 was trained with 0')
    self.assert_ends(refused, 1, 7, 'process=0: it ended at step 0, .*config.seed=3')
    # On one process of four devices: the same examples, other bits, and a line that says so.
    alone = self.run_main(self.folder / 'refused', devices=4, **{**FIELDS, 'num_epochs': 0.5})
    self.assertIn('num_processes was 2, is 1: the same examples', alone.stderr)
    self.assertIn('resumed from step 6', alone.stdout)
    odd = self.cluster('odd', own={1: {'seed': 1}}, num_epochs=0.25)
    odd.wait()
    self.assert_ends(odd, 1, 2, 'config.seed=1: process 0 has 0, process 1 has not')
    self.assert_ends(odd, 0, 7, 'process=1: it ended at step 0, .*config.seed=1')

  def test_joins_as_slurm_says(self):
    """Two tasks of a job on this machine, which is all that JAX looks at."""
    job = str(os.getpid())
    processes = []
    for task in range(2):
      slurm = {'JOB_ID': job, 'STEP_NODELIST': 'localhost', 'NTASKS': '2', 'STEP_NUM_NODES': '1'}
      slurm |= {'PROCID': str(task), 'LOCALID': str(task)}
      arguments = train_process.command(
        self.folder / 'slurm', self.data_dir, {**FIELDS, 'num_epochs': 0.1}
      )
      processes.append(
        subprocess.Popen(
          [*arguments, '--coordinator_address=auto'],
          env={
            **train_process.environment(2),
            **{f'SLURM_{name}': value for name, value in slurm.items()},
          },
          stdout=subprocess.PIPE,
          stderr=subprocess.PIPE,
          text=True,
        )
      )
    for process in processes:
      _, stderr = process.communicate(timeout=train_process.TIMEOUT)
      self.assertEqual(process.returncode, 0, stderr[-2000:])
    run = json.loads((self.folder / 'slurm' / 'run.json').read_text())
    self.assertEqual((run['num_devices'], run['num_processes']), (4, 2))


if __name__ == '__main__':
  absltest.main()
