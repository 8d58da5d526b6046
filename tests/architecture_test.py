"""Imports point one way, pmap has one room, and nothing loads TensorFlow."""

import ast
import pathlib
import subprocess
import sys

from absl.testing import absltest, parameterized

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / 'bitnet_jax'

# What a room may import of the others, itself left out; rooms not named here are commands.
MAY_IMPORT = {
  'errors': set(),
  'cli': {'errors', 'heap', 'interrupt', 'output'},
  '__init__': {'interrupt'},
  'interrupt': set(),
  'output': {'errors'},
  'paths': {'errors'},
  'heap': set(),
  'config': {'errors'},
  'validation': {'config', 'errors'},
  'recipes': {'config'},
  'cores': set(),
  'garbage': set(),
  'onednn': {'cores'},
  'models': {'onednn'},
  'inference': {'models', 'onednn'},
  'data': {'errors'},
  'optim': set(),
  'metrics': set(),
  'parallel': {'cluster'},
  'records': {'config', 'cores'},
  'watchdog': {'errors', 'output'},
  'pulse': {'errors'},
  'cluster': {'address', 'errors', 'pulse', 'stop', 'watchdog'},
  'metric_writer': set(),
  'progress': set(),
  'manifest': {'errors'},
  'layout': {'errors'},
  'damaged': {'errors', 'layout', 'manifest'},
  'retention': set(),
  'stop': {'output'},
  'compilation': set(),
  'memory': {'errors'},
  'held': {'errors'},
  'workdir': {'errors', 'held'},
  'checkpoint': {'damaged', 'errors', 'held', 'layout', 'manifest', 'retention'},
  'trained': {'config', 'damaged', 'errors', 'layout', 'retention'},
  'plan': {'errors'},
  'assemble': {'cores', 'errors', 'config', 'models', 'data', 'onednn', 'optim', 'plan'},
  'address': {'errors'},
  'preflight': {'assemble', 'data', 'models', 'plan', 'stop', 'validation', 'workdir'},
  'steps': {'metrics', 'models', 'parallel'},
  'feeds': {'assemble', 'cores', 'data', 'errors', 'parallel', 'steps'},
  'evaluation': {'data', 'feeds', 'memory', 'metrics', 'parallel', 'steps'},
  'recorder': {'cluster', 'metrics', 'parallel', 'metric_writer', 'plan', 'progress', 'steps'},
  'resume': {'checkpoint', 'cluster', 'config', 'errors', 'plan', 'steps', 'trained'},
}
# Nobody but itself imports these.
LEAVES = ('analysis', 'main', 'train')


def sources():
  return sorted(PACKAGE.rglob('*.py'))


def room(path):
  return path.relative_to(PACKAGE).parts[0].removesuffix('.py')


def imported_rooms(tree):
  """Rooms of this package that a module imports, anywhere in it."""
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      names = [f'{node.module}.{alias.name}' for alias in node.names]
    else:
      continue
    for name in names:
      parts = name.split('.')
      if parts[0] == 'bitnet_jax' and len(parts) > 1:
        yield parts[1]


class ArchitectureTest(parameterized.TestCase):
  def test_rooms_import_what_they_may(self):
    for path in sources():
      if room(path) in MAY_IMPORT:
        got = set(imported_rooms(ast.parse(path.read_text()))) - {room(path)}
        self.assertLessEqual(got, MAY_IMPORT[room(path)], path)

  @parameterized.parameters(*LEAVES)
  def test_nobody_imports(self, leaf):
    importers = {
      room(path) for path in sources() if leaf in imported_rooms(ast.parse(path.read_text()))
    }
    allowed = {leaf, 'main', 'benchmarks'} if leaf == 'train' else {leaf}
    if leaf == 'analysis':
      allowed |= {'audit', 'benchmarks'}
    self.assertLessEqual(importers, allowed)

  def test_commands_import_no_other_command(self):
    commands = {room(path) for path in sources() if 'cli.run(' in path.read_text()}
    commands -= {'cli', 'analysis'}
    self.assertContainsSubset({'main', 'evaluate', 'predict', 'prepare', 'benchmark'}, commands)
    for name in commands:
      got = set(imported_rooms(ast.parse((PACKAGE / f'{name}.py').read_text())))
      self.assertEqual(got & commands - {name}, set(), name)

  def test_every_room_of_the_table_exists(self):
    self.assertLessEqual(set(MAY_IMPORT), {room(path) for path in sources()})

  def test_pmap_has_one_room(self):
    users = {
      room(path)
      for path in sources()
      for node in ast.walk(ast.parse(path.read_text()))
      if isinstance(node, ast.Attribute) and node.attr == 'pmap'
    }
    self.assertEqual(users, {'parallel'})

  def test_no_duration_is_read_from_a_clock_that_can_be_set(self):
    """Only TensorBoard's rows say when they were written; benchmarks span processes."""
    users = {
      room(path)
      for path in sources()
      for node in ast.walk(ast.parse(path.read_text()))
      if isinstance(node, ast.Attribute) and ast.unparse(node) in ('time.time', 'datetime.now')
    }
    self.assertLessEqual(users, {'metric_writer', 'benchmarks'})
    self.assertIn('metric_writer', users)

  def test_main_leaves_arrays_and_optimizers_to_others(self):
    tree = ast.parse((PACKAGE / 'main.py').read_text())
    names = {
      alias.name
      for node in ast.walk(tree)
      if isinstance(node, ast.Import | ast.ImportFrom)
      for alias in node.names
    }
    self.assertEqual(names & {'jax', 'jax.numpy', 'optax'}, set())

  def test_nothing_loads_tensorflow(self):
    code = (
      'import sys, bitnet_jax.train, bitnet_jax.main, bitnet_jax.models, bitnet_jax.data.sources\n'
      'print([m for m in sys.modules if m.split(".")[0] in ("tensorflow", "clu")])'
    )
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    self.assertEqual(out.stdout.strip(), '[]')

  def test_a_network_alone_loads_no_data_sets(self):
    """A third of the imports of a run, which what only needs a network goes without."""
    code = (
      'import sys, bitnet_jax.assemble\n'
      'print([m for m in ("tensorflow_datasets", "requests", "cv2", "PIL") if m in sys.modules])'
    )
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    self.assertEqual(out.stdout.strip(), '[]')

  def test_training_loads_no_client_of_the_network(self):
    code = 'import sys, bitnet_jax.train\nprint("requests" in sys.modules)'
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    self.assertEqual(out.stdout.strip(), 'False')

  def test_files_stay_small(self):
    for path in sources():
      self.assertLessEqual(len(path.read_text().splitlines()), 400, path)
    self.assertFalse((PACKAGE / 'utils.py').exists())


if __name__ == '__main__':
  absltest.main()
