"""No code from data: the source holds no call that would run what it reads."""

import ast
import pathlib

from absl.testing import absltest

ROOT = pathlib.Path(__file__).parent.parent
MODULES = {'pickle', 'cPickle', 'dill', 'cloudpickle', 'shelve', 'marshal', 'joblib', 'yaml'}
CALLS = {'eval', 'exec', 'yaml.load', 'torch.load', 'tarfile.extractall'}


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
    if isinstance(node, ast.Attribute) and dotted(node) == 'os.environ' and node not in one:
      yield 'os.environ'


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


class SecurityTest(absltest.TestCase):
  def test_source_runs_no_data(self):
    for folder in ('bitnet_jax', 'configs'):
      for path in sorted((ROOT / folder).rglob('*.py')):
        self.assertEqual(list(faults(ast.parse(path.read_text()))), [], path)

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
    ):
      self.assertLen(list(faults(ast.parse(line))), 1, line)

  def test_single_variables_may_be_read(self):
    for line in ('os.environ["A"]', 'os.environ.get("A")', 'run(env={**os.environ, "A": "b"})'):
      self.assertEqual(list(faults(ast.parse(line))), [], line)


if __name__ == '__main__':
  absltest.main()
