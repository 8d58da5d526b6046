"""No code from data: the source holds no call that would run what it reads. No port in training."""

import ast
import os
import pathlib
import re
import socket
import subprocess

from absl.testing import absltest

from tests.helpers import train_process
from tests.helpers.paths import ROOT

MODULES = {'pickle', 'cPickle', 'dill', 'cloudpickle', 'shelve', 'marshal', 'joblib', 'yaml'}
CALLS = {'eval', 'exec', '__import__', 'yaml.load', 'torch.load', 'tarfile.extractall'}
ENVIRONMENTS = {'environ', 'environb'}


def dotted(node):
  if isinstance(node, ast.Attribute):
    return f'{dotted(node.value)}.{node.attr}'
  return node.id if isinstance(node, ast.Name) else ''


def whole_environments(tree):
  """Uses of the environment as a whole, but to pass it on to a process; such a one could log it."""
  one = set()
  for node in ast.walk(tree):
    if isinstance(node, ast.Subscript) or (
      isinstance(node, ast.Attribute) and node.attr in ('get', 'setdefault', 'update')
    ):
      one.add(node.value)
    elif isinstance(node, ast.Dict):
      one.update(value for key, value in zip(node.keys, node.values, strict=True) if key is None)
  for node in ast.walk(tree):
    # Of any name, as the module may have been given another one.
    if isinstance(node, ast.Attribute) and node.attr in ENVIRONMENTS and node not in one:
      yield dotted(node)
    elif isinstance(node, ast.ImportFrom) and node.module == 'os':  # Used by a name of its own.
      yield from (a.name for a in node.names if a.name in (*ENVIRONMENTS, '*'))


def faults(tree):
  yield from whole_environments(tree)
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      yield from (a.name for a in node.names if a.name.split('.')[0] in MODULES)
    elif isinstance(node, ast.ImportFrom) and node.module:
      if node.module.split('.')[0] in MODULES:
        yield node.module
    elif isinstance(node, ast.Call):
      name = dotted(node.func)
      if name in CALLS or name.endswith('.extractall'):
        yield name
      yield from (k.arg for k in node.keywords if k.arg in ('allow_pickle', 'shell'))


def programs():
  """(where, source) of all Python that is no test: modules, helpers of tests, lines in scripts."""
  for folder in ('bitnet_jax', 'configs', 'launch', 'tests', '.ci'):
    for path in sorted((ROOT / folder).rglob('*.py')):
      if not path.name.endswith('_test.py'):
        yield str(path.relative_to(ROOT)), path.read_text()
  for path in (*sorted((ROOT / 'launch').glob('*.sh')), ROOT / '.ci' / 'run'):
    for line in re.findall(r"(?<= -c )'([^']*)'", path.read_text()):
      yield str(path.relative_to(ROOT)), line


def family(pid):
  """A process and all that it started, and they."""
  paths = pathlib.Path(f'/proc/{pid}/task').glob('*/children')
  children = [child for path in paths for child in path.read_text().split()]
  return [str(pid), *(one for child in children for one in family(child))]


def network_sockets(pid):
  """Lines of the kernel's tables of TCP and UDP sockets that the processes hold, in any state."""
  sockets = set()
  for one in family(pid):
    for path in pathlib.Path(f'/proc/{one}/fd').iterdir():
      link = os.readlink(path) if path.is_symlink() else ''
      sockets.add(link.removeprefix('socket:[').removesuffix(']'))
  lines = [
    (table, line)
    for table in ('tcp', 'tcp6', 'udp', 'udp6')
    for line in pathlib.Path(f'/proc/{pid}/net/{table}').read_text().splitlines()[1:]
  ]
  return [f'{table} {line}' for table, line in lines if line.split()[9] in sockets]


class PortTest(train_process.DataCase):
  def test_training_opens_no_port_and_no_connection(self):
    """With a worker that reads the data, which talks to the run."""
    fields = {'data.pipeline': 'stream', 'data.workers': 1, 'num_epochs': 200}
    run = subprocess.Popen(
      train_process.command(self.folder / 'run', self.data_dir, fields),
      env=train_process.environment(1),
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      text=True,
    )
    self.addCleanup(run.kill)
    for line in run.stdout:
      if 'step 6/' in line:
        break
    self.assertIsNone(run.poll())
    self.assertGreater(len(family(run.pid)), 1)
    self.assertEqual(network_sockets(run.pid), [])
    run.terminate()
    run.communicate(timeout=train_process.TIMEOUT)

  def test_the_look_finds_them(self):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
      with socket.socket(type=kind) as port:
        port.bind(('127.0.0.1', 0))
        if kind == socket.SOCK_STREAM:
          port.listen()
        number = port.getsockname()[1]
        found = [line for line in network_sockets(os.getpid()) if f':{number:04X} ' in line]
        self.assertLen(found, 1)


class SecurityTest(absltest.TestCase):
  def test_source_runs_no_data(self):
    seen = set()
    for where, source in programs():
      self.assertEqual(list(faults(ast.parse(source))), [], where)
      seen.add(where)
    self.assertContainsSubset(
      {
        'bitnet_jax/data/images/crop.py',
        'configs/digits_bitnet.py',
        'launch/environment.sh',
        'launch/local_cluster.sh',
        'tests/conftest.py',
        'tests/helpers/faults.py',
      },
      seen,
    )

  def test_the_search_finds_them(self):
    for line in (
      'import pickle',
      'from dill import loads',
      'eval(text)',
      'np.load(path, allow_pickle=True)',
      'archive.extractall(folder)',
      'yaml.load(file)',
      'import yaml',
      'print(os.environ)',
      'for name, value in os.environ.items(): pass',
      'from os import environ',
      'from os import path, environb as e',
      'from os import *',
      'import os as system; print(dict(system.environ))',
      '__import__("pickle")',
    ):
      self.assertLen(list(faults(ast.parse(line))), 1, line)

  def test_single_variables_may_be_read(self):
    for line in ('os.environ["A"]', 'os.environ.get("A")', 'run(env={**os.environ, "A": "b"})'):
      self.assertEqual(list(faults(ast.parse(line))), [], line)


if __name__ == '__main__':
  absltest.main()
