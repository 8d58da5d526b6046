"""No code from data: the source holds no call that would run what it reads."""

import ast
import pathlib

from absl.testing import absltest

ROOT = pathlib.Path(__file__).parent.parent
MODULES = {'pickle', 'cPickle', 'dill', 'cloudpickle', 'shelve', 'marshal', 'joblib'}
CALLS = {'eval', 'exec', 'yaml.load', 'torch.load', 'tarfile.extractall'}


def dotted(node):
  if isinstance(node, ast.Attribute):
    return f'{dotted(node.value)}.{node.attr}'
  return node.id if isinstance(node, ast.Name) else ''


def faults(tree):
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
    elif isinstance(node, ast.Attribute) and dotted(node) == 'os.environ.items':
      yield 'os.environ.items'


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
    ):
      self.assertLen(list(faults(ast.parse(line))), 1, line)


if __name__ == '__main__':
  absltest.main()
