"""The examples in docstrings compute what they say."""

import doctest
import importlib

from absl.testing import absltest, parameterized

MODULES = ('config.sizes', 'data.images.augment', 'models.blocks', 'models.norm', 'training.optim')


class DoctestTest(parameterized.TestCase):
  @parameterized.parameters(*((name,) for name in MODULES))
  def test_examples(self, name):
    module = importlib.import_module(f'bitnet_jax.{name}')
    result = doctest.testmod(module)
    self.assertGreater(result.attempted, 0)
    self.assertEqual(result.failed, 0)


if __name__ == '__main__':
  absltest.main()
