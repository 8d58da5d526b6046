"""Processes that join as one: two in short, what is refused, the script that starts them.

More of two real processes: tests/faults/.
"""

import ast
import json
import pathlib
import shutil
import signal
import subprocess
import time

from absl.testing import absltest, parameterized

from tests.helpers import train_process
from tests.helpers.cluster_process import ClusterCase
from tests.helpers.paths import program
from tests.helpers.processes import outside_environment

# Two steps. A group of batch norm within each device: one over all of them costs Gloo a message a
# layer.
FIELDS = {'num_epochs': 0.1, 'model.batch_norm_group': 16}


class ClusterTest(ClusterCase):
  def test_two_processes_train_as_one_and_write_once(self):
    cluster = self.cluster(self.folder / 'two', **FIELDS)
    codes, _ = cluster.wait()
    self.assertEqual(codes, [0, 0], cluster.stderr(0)[-2000:] + cluster.stderr(1)[-2000:])
    result = json.loads((self.folder / 'two' / 'result.json').read_text())
    self.assertEqual((result['count'], result['step']), (360, 2))
    run = json.loads((self.folder / 'two' / 'run.json').read_text())
    self.assertEqual((run['num_devices'], run['num_processes']), (4, 2))
    self.assertIn('test error', cluster.stdout(0))
    said = [line for line in cluster.stdout(1).splitlines() if 'peer ranks' not in line]
    self.assertEmpty(said)

  def test_process_that_never_joins(self):
    started = time.monotonic()
    fields = {'watch.join_seconds': 4}
    cluster = self.cluster(self.folder / 'absent', absent=(1,), **fields)
    cluster.wait()
    line = f'coordinator_address={cluster.address}: not all of 2 processes joined within 4 s'
    self.assert_ends(cluster, 0, 7, line)
    self.assertEqual(cluster.stderr(0).splitlines()[-1], cluster.error_lines(0)[0])
    self.assertLess(time.monotonic() - started, 60)

  def test_signal_while_it_waits_for_the_others(self):
    """As the one that coordinates, and as one that cannot reach it."""
    clusters = {}
    for number in (0, 1):
      options = {
        'absent': (1 - number,),
        'programs': {number: 'joins_cluster'},
        'watch.join_seconds': 30,
      }
      clusters[number] = self.cluster(self.folder / f'joins-{number}', **options)
    for number, cluster in clusters.items():
      while 'JOINS' not in cluster.stdout(number):
        self.assertIsNone(cluster.processes[number].poll(), cluster.stderr(number)[-2000:])
        time.sleep(0.05)
      time.sleep(1)  # Now in native code, which runs no handler.
      cluster.send(number, signal.SIGTERM)
      _, seconds = cluster.wait()
      line = f'coordinator_address={cluster.address}: asked to stop before all had joined; run the'
      self.assert_ends(cluster, number, 75, line)
      self.assertLess(seconds, 10)


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

  ENDS = pathlib.Path(program('ends_as_told')).read_text()
  SHOWS = 'import sys; print(sys.argv[1:-3])'  # Without what the script adds.

  def run_script(self, *arguments, main=ENDS, **options):
    folder = pathlib.Path(self.create_tempdir().full_path)
    shutil.copytree(train_process.ROOT / 'launch', folder / 'launch')
    with (folder / 'launch' / 'environment.sh').open('a') as file:
      file.write('prepare_environment() { python=python3; }\n')
    (folder / 'bitnet_jax').mkdir()
    (folder / 'bitnet_jax' / 'main.py').write_text(main)
    command = ['bash', str(folder / 'launch' / 'local_cluster.sh'), *arguments]
    options = {'env': outside_environment(), **options}
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)

  def test_passes_on_the_code_that_explains_most(self):
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

  def test_paths_are_relative_to_where_it_was_started(self):
    here = pathlib.Path(self.create_tempdir().full_path).resolve()
    arguments, expected = [], []
    for name in ('--workdir', '-workdir', '--config', '--config.data.dir', '--config.init_from'):
      for given, want in (
        ('runs/a', f'{here}/runs/a'),
        ('a b:4,6', f'{here}/a b:4,6'),
        ('/runs/a', '/runs/a'),
        ('~/a', '/home/me/a'),
        ('gs://bucket/a', 'gs://bucket/a'),
        ('', ''),
      ):
        arguments += [f'{name}={given}', name, given, '--config.seed=1', 'runs/a']
        expected += [f'{name}={want}', name, want, '--config.seed=1', 'runs/a']
    home = {**outside_environment(), 'HOME': '/home/me'}
    done = self.run_script('1', *arguments, main=self.SHOWS, cwd=here, env=home)
    self.assertEqual(ast.literal_eval(done.stdout), expected, done.stderr)


if __name__ == '__main__':
  absltest.main()
