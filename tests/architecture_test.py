"""Imports point one way, pmap has one file, and nothing loads TensorFlow."""

import ast
import pathlib

from absl.testing import absltest, parameterized

from tests.helpers.paths import ROOT
from tests.helpers.processes import run_program

PACKAGE = ROOT / 'bitnet_jax'

# Rooms by floor, the lowest first: a room imports from the floors below it, and from its own
# sub-rooms. The files at the top of the package, but `errors`, are the commands.
FLOORS = (
  ('errors',),
  ('config', 'runtime'),
  ('distributed', 'checkpoints', 'logs', 'onednn'),
  ('models', 'data/images', 'data/datasets', 'data/batches', 'data'),
  ('training', 'inference'),
  ('analysis/plotting', 'analysis/regions', 'analysis/audit', 'analysis'),
  ('benchmarks',),
  ('commands',),
)
# What a room may import besides the floors below: rooms of its own floor, before it.
NEIGHBORS = {
  'data/datasets': {'data/images'},
  'data/batches': {'data/images', 'data/datasets'},
  'data': {'data/images', 'data/datasets', 'data/batches'},
  'analysis/audit': {'analysis/plotting'},
  'analysis': {'analysis/plotting', 'analysis/regions', 'analysis/audit'},
}


def sources():
  return sorted(PACKAGE.rglob('*.py'))


def room(path):
  *folders, name = path.relative_to(PACKAGE).parts
  if folders:
    return '/'.join(folders)
  return 'errors' if name == 'errors.py' else 'commands'


def imported_files(tree):
  """Files of this package that a module imports, anywhere in it."""
  for node in ast.walk(tree):
    if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith('bitnet_jax'):
      for alias in node.names:
        for name in (f'{node.module}.{alias.name}', node.module):
          place = ROOT / name.replace('.', '/')
          path = place.with_suffix('.py') if not place.is_dir() else place / '__init__.py'
          if path.exists():
            yield path
            break


def rooms_imported_by(path):
  return {room(file) for file in imported_files(ast.parse(path.read_text()))} - {room(path)}


def loaded_by(*modules, names):
  """Which of the packages are loaded once these modules have been imported, in a new process."""
  return run_program('loaded_by_import', *modules, '--', *names, check=True).stdout.strip()


def users_of(attribute):
  return {
    str(path.relative_to(PACKAGE))
    for path in sources()
    for node in ast.walk(ast.parse(path.read_text()))
    if isinstance(node, ast.Attribute) and ast.unparse(node) == attribute
  }


class ArchitectureTest(parameterized.TestCase):
  def test_every_room_has_a_floor(self):
    self.assertEqual({room(path) for path in sources()}, {name for row in FLOORS for name in row})

  def test_rooms_import_from_the_floors_below(self):
    below = set()
    for floor in FLOORS:
      for path in sources():
        if room(path) in floor and path.name != '__init__.py':
          allowed = below | NEIGHBORS.get(room(path), set())
          self.assertLessEqual(rooms_imported_by(path), allowed, path)
      below |= set(floor)

  def test_commands_import_no_other_command(self):
    for path in PACKAGE.glob('*.py'):
      if path.name not in ('__init__.py', 'errors.py'):
        self.assertNotIn('commands', rooms_imported_by(path), path)
        self.assertIn('cli.run(', path.read_text(), path)

  def test_pmap_has_one_file(self):
    self.assertEqual(users_of('jax.pmap'), {'distributed/devices.py'})

  def test_no_duration_is_read_from_a_settable_clock(self):
    """Only TensorBoard's rows say when they were written; benchmarks span processes."""
    users = users_of('time.time') | users_of('datetime.now')
    self.assertIn('logs/metric_writer.py', users)
    self.assertLessEqual({pathlib.Path(user).parts[0] for user in users}, {'logs', 'benchmarks'})

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
    modules = 'bitnet_jax.training.train', 'bitnet_jax.main', 'bitnet_jax.models'
    self.assertEqual(loaded_by(*modules, names=('tensorflow', 'clu')), '[]')

  def test_a_network_alone_loads_no_data_sets(self):
    """A third of the imports of a run, which what only needs a network goes without."""
    names = 'tensorflow_datasets', 'requests', 'cv2', 'PIL'
    self.assertEqual(loaded_by('bitnet_jax.models.build', names=names), '[]')

  def test_training_loads_no_client_of_the_network(self):
    self.assertEqual(loaded_by('bitnet_jax.training.train', names=('requests', 'jax')), "['jax']")


if __name__ == '__main__':
  absltest.main()
