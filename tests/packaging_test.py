"""The requirements of the package are those of its imports and of what is installed."""

import ast
import configparser
import importlib.metadata
import re
import sys

from absl.testing import absltest

from tests.helpers.paths import ROOT

# Imported where a command is asked to compare with it, and never installed by default.
# Of the benchmarks' other side, which another Python may run.
_OPTIONAL = {'torch', 'torch_networks', 'onnxruntime'}


class PackagingTest(absltest.TestCase):
  def test_every_import_is_declared(self):
    setup = configparser.ConfigParser()
    setup.read(ROOT / 'setup.cfg')
    declared = set(re.findall(r'(?m)^([\w-]+)>=', setup['options']['install_requires']))
    declared = {name.lower().replace('_', '-') for name in declared}
    distributions = importlib.metadata.packages_distributions()
    imported = set()
    for path in (ROOT / 'bitnet_jax').rglob('*.py'):
      for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
          imported |= {alias.name.split('.')[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
          imported.add(node.module.split('.')[0])
    imported -= sys.stdlib_module_names | {'bitnet_jax'} | _OPTIONAL
    self.assertContainsSubset({'jax', 'matplotlib'}, imported)
    for name in imported:
      owners = {owner.lower().replace('_', '-') for owner in distributions.get(name, [name])}
      self.assertTrue(owners & declared, f'{name} is not in install_requires')

  def test_installed_versions_satisfy_the_lower_bounds(self):
    setup = configparser.ConfigParser()
    setup.read(ROOT / 'setup.cfg')
    bounds = re.findall(r'(?m)^([\w-]+)>=([\d.]+)', setup['options']['install_requires'])
    self.assertGreater(len(bounds), 10)
    for name, bound in bounds:
      version = importlib.metadata.version(name)
      numbers = [[int(n) for n in re.findall(r'\d+', text)] for text in (version, bound)]
      self.assertGreaterEqual(*numbers, f'{name} {version} is below {bound}')


if __name__ == '__main__':
  absltest.main()
