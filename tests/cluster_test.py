"""Two real processes of two devices each: one process's update, one stop for both, lost peers."""

import json
import pathlib
import shutil
import signal
import subprocess
import time

import jax
import numpy as np
from absl.testing import absltest, parameterized

from tests import train_process
from tests.cluster_process import Cluster

# Half an epoch. A group of batch norm within each device: one over all of them costs Gloo a message
# a layer and is for the nightly tests.
FIELDS = {
  'num_epochs': 0.5,
  'model.batch_norm_group': 16,
  'checkpoint.every_steps': 4,
  'checkpoint.keep_latest': 9,
}


class ClusterTest(train_process.DataCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.whole = cls.folder / 'whole'
    with Cluster(cls.whole, cls.data_dir, **FIELDS) as cluster:
      codes, _ = cluster.wait()
      assert codes == [0, 0], (codes, cluster.stderr(0)[-2000:], cluster.stderr(1)[-2000:])
      cls.printed = cluster.stdout(0), cluster.stdout(1)

  def cluster(self, workdir, **fields):
    return self.enterContext(Cluster(workdir, self.data_dir, **fields))

  def assert_ends(self, cluster, number, code, line):
    self.assertEqual(cluster.processes[number].returncode, code, cluster.stderr(number)[-3000:])
    self.assertLen(cluster.error_lines(number), 1, cluster.stderr(number)[-3000:])
    self.assertRegex(cluster.error_lines(number)[0], line)
    self.assertEqual(cluster.stderr(number).splitlines()[-1], cluster.error_lines(number)[0])
    self.assertNotIn('Traceback', cluster.stderr(number))

  def test_gives_the_update_of_one_process(self):
    """The same sums in another order: rounding is all that may differ, and grows with the steps."""
    alone = self.folder / 'alone'
    self.run_main(alone, devices=4, **FIELDS)
    one, two = train_process.rows(alone, 'train'), train_process.rows(self.whole, 'train')
    self.assertEqual([row['step'] for row in two], list(range(1, 12)))
    for a, b in zip(one[:5], two[:5], strict=True):
      self.assertAlmostEqual(a['loss'], b['loss'], delta=1e-5)
      self.assertEqual(a['error'], b['error'])
    states = self.state(alone, 4), self.state(self.whole, 4)
    for a, b in zip(*map(jax.tree.leaves, states), strict=True):
      np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)

  def test_counts_every_example_once_and_writes_once(self):
    result = json.loads((self.whole / 'result.json').read_text())
    self.assertEqual((result['count'], result['step']), (360, 11))
    run = json.loads((self.whole / 'run.json').read_text())
    self.assertEqual((run['num_devices'], run['num_processes']), (4, 2))
    self.assertIn('test error', self.printed[0])
    said = [line for line in self.printed[1].splitlines() if 'peer ranks' not in line]
    self.assertEmpty(said)

  def test_sigterm_to_one_saves_the_same_step_and_goes_on_bit_for_bit(self):
    workdir = self.folder / 'stopped'
    cluster = self.cluster(workdir, **FIELDS)
    cluster.wait_for('step 3/11')
    cluster.send(1, signal.SIGTERM)
    codes, _ = cluster.wait()
    self.assertEqual(codes, [75, 75], cluster.stderr(0)[-2000:] + cluster.stderr(1)[-2000:])
    step = int(cluster.error_lines(0)[0].partition('step=')[2].partition(':')[0])
    self.assertBetween(step, 4, 10)
    self.assertRegex(cluster.error_lines(1)[0], f'step={step}: asked to stop; process 0 saves')
    self.assertTrue((workdir / 'manifests' / f'{step}.json').exists())
    rerun = self.cluster(workdir, **FIELDS)
    codes, _ = rerun.wait()
    self.assertEqual(codes, [0, 0], rerun.stderr(0)[-2000:])
    self.assertIn(f'resumed from step {step}', rerun.stdout(0))
    self.assertEqual(train_process.rows(workdir), train_process.rows(self.whole))
    self.assertSameState(workdir, self.whole)

  def test_listens_at_the_address_alone_and_a_killed_coordinator_ends_the_others(self):
    cluster = self.cluster(self.folder / 'killed', **{**FIELDS, 'num_epochs': 9})
    cluster.wait_for('step 3/')
    port = int(cluster.address.rpartition(':')[2])
    listeners = [
      line.split()[1]
      for table in ('/proc/net/tcp', '/proc/net/tcp6')
      for line in pathlib.Path(table).read_text().splitlines()[1:]
      if line.split()[3] == '0A' and line.split()[1].endswith(f':{port:04X}')
    ]
    self.assertLen(listeners, 1)
    self.assertTrue(listeners[0].split(':')[0].endswith('0100007F'), listeners)  # 127.0.0.1
    cluster.send(0, signal.SIGKILL)
    _, seconds = cluster.wait(1)
    line = '(process=0: lost|coordinator_address=.*: process 0.* was lost after step [0-9]+)'
    self.assert_ends(cluster, 1, 7, line)
    self.assertLess(seconds, 30)

  def test_process_that_never_joins(self):
    started = time.monotonic()
    fields = {**FIELDS, 'watch.join_seconds': 4}
    cluster = self.cluster(self.folder / 'absent', absent=(1,), **fields)
    cluster.wait()
    line = f'coordinator_address={cluster.address}: not all of 2 processes joined within 4 s'
    self.assert_ends(cluster, 0, 7, line)
    self.assertLess(time.monotonic() - started, 60)


class AddressTest(parameterized.TestCase):
  @parameterized.parameters(
    (('--coordinator_address=nowhere',), 'coordinator_address=nowhere: not HOST:PORT'),
    (('--coordinator_address=h:0',), 'coordinator_address=h:0: not HOST:PORT'),
    (('--coordinator_address=h:9',), 'num_processes=0: less than 1'),
    (
      ('--coordinator_address=h:9', '--num_processes=2', '--process_id=2'),
      'process_id=2: not a number of 2 processes; use one from 0 to 1',
    ),
    (
      ('--coordinator_address=203.0.113.7:9999', '--num_processes=2', '--process_id=0'),
      'coordinator_address=203.0.113.7:9999: cannot listen there: ',
    ),
    (('--coordinator_address=auto',), 'coordinator_address=auto: no Slurm, Open MPI'),
  )
  def test_refuses(self, arguments, line):
    folder = self.create_tempdir().full_path
    command = train_process.command(f'{folder}/run', folder, {})
    result = subprocess.run(
      [*command, *arguments],
      env=train_process.environment(1),
      capture_output=True,
      text=True,
      timeout=60,
    )
    self.assertEqual(result.returncode, 2, result.stderr[-2000:])
    self.assertIn(f'bitnet_jax: error: {line}', result.stderr)
    self.assertLen(result.stderr.strip().splitlines(), 1)


class LocalClusterTest(absltest.TestCase):
  """The launch script, with a stand-in for the package that ends as it is told."""

  PROGRAM = (
    'import sys, time\n'
    'flags = dict(a.partition("=")[::2] for a in sys.argv[1:])\n'
    'print(sorted(flags), flush=True)\n'
    'sys.exit(int(flags["--codes"].split(",")[int(flags["--process_id"])]))\n'
  )

  def run_script(self, *arguments):
    folder = pathlib.Path(self.create_tempdir().full_path)
    shutil.copytree(train_process.ROOT / 'launch', folder / 'launch')
    (folder / 'launch' / 'environment.sh').write_text(
      'root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)\npython=python3\n'
      'fail() { echo "$2" >&2; exit "$1"; }\nprepare_environment() { :; }\n'
    )
    (folder / 'bitnet_jax').mkdir()
    (folder / 'bitnet_jax' / 'main.py').write_text(self.PROGRAM)
    command = ['bash', str(folder / 'launch' / 'local_cluster.sh'), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)

  def test_starts_each_and_passes_on_the_code_that_explains_most(self):
    for codes, expected in (('0,0', 0), ('75,75', 75), ('7,4', 4), ('137,7', 7), ('0,0,1', 1)):
      count = len(codes.split(','))
      done = self.run_script(str(count), f'--codes={codes}')
      self.assertEqual(done.returncode, expected, (codes, done.stderr))
      names = ['--codes', '--coordinator_address', '--num_processes', '--process_id']
      self.assertEqual(done.stdout.splitlines(), [str(names)] * count)

  def test_needs_a_number(self):
    for bad in ((), ('0',), ('two',)):
      done = self.run_script(*bad)
      self.assertEqual(done.returncode, 2)
      self.assertIn('not a whole number from 1', done.stderr)


if __name__ == '__main__':
  absltest.main()
