"""Every field has a home, every fault has a line, and the files in configs/ are valid."""

import dataclasses
import importlib.util
import math

from absl.testing import absltest, parameterized

from bitnet_jax import errors
from bitnet_jax.analysis.audit import paper
from bitnet_jax.config import defaults, fields, validation
from tests.helpers.paths import ROOT

CONFIGS = ROOT / 'configs'


def load(name, *arguments):
  spec = importlib.util.spec_from_file_location(name, CONFIGS / f'{name}.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module.get_config(*arguments)


def set_field(config, name, value):
  *sections, leaf = name.split('.')
  for section in sections:
    config = config[section]
  with config.ignore_type():
    config[leaf] = value


class DefaultsTest(absltest.TestCase):
  def test_defaults_are_valid(self):
    validation.validate(defaults.default_config())

  def test_defaults_are_the_papers_cifar_recipe(self):
    config = defaults.default_config()
    self.assertEqual(config.global_batch_size, 128)
    self.assertEqual(config.num_epochs, 200)
    self.assertEqual(config.model.batch_norm_group, 64)
    self.assertEqual(config.optim.drop_epochs, (60, 120, 160))
    self.assertEqual(config.optim.drop_factor, 0.2)
    self.assertEqual(config.optim.weight_decay, 5e-4)
    self.assertTrue(config.optim.nesterov)
    self.assertEqual((config.augment.pad, config.augment.pad_mode), (4, 'zeros'))

  def test_every_field_has_a_default_and_a_description(self):
    for field in fields.FIELDS:
      self.assertIsNotNone(field.default, field.name)
      self.assertGreater(len(field.doc), 3, field.name)

  def test_config_is_locked(self):
    with self.assertRaises(AttributeError):
      defaults.default_config().optim.rate = 1.0


class FilesTest(parameterized.TestCase):
  @parameterized.parameters(*sorted(path.stem for path in CONFIGS.glob('*.py')))
  def test_file_is_valid(self, name):
    config = load(name)
    if config.data.name == 'folder' and not config.data.dir:
      config.data.dir = 'photos'  # Has no default: the user names it.
    validation.validate(config)

  @parameterized.parameters(('12,4,2', (12, 4, 2)), ('4,6,2', (4, 6, 2)))
  def test_row(self, row, sizes):
    model = load('cifar10_bitnet', row).model
    self.assertEqual((model.width, model.tree_depth, model.num_blocks), sizes)

  @parameterized.parameters('4,6', 'a,b,c', '4,6,2,1', '', '-4,2,6')
  def test_bad_row(self, row):
    with self.assertRaisesRegex(errors.ConfigError, f'config={row}: not a row'):
      load('cifar10_bitnet', row)

  @parameterized.parameters('imagenet_bitnet26', 'imagenet_bitnet34')
  def test_imagenet_recipe(self, name):
    config = load(name)
    self.assertEqual((config.global_batch_size, config.num_epochs), (256, 90))
    self.assertEqual(config.model.batch_norm_group, 32)
    self.assertEqual((config.optim.drop_epochs, config.optim.drop_factor), ((31, 61), 0.1))
    self.assertEqual(config.optim.weight_decay, 1e-4)


def networks(table):
  """Of a table's rows: what the file in configs/ is called, its argument, the network, errors."""
  for row in paper.ROWS:
    network = row.network
    if row.table != table or network is None:
      continue
    if network.is_cifar:
      key = f'{network.width},{network.tree_depth},{network.num_blocks}'
      for data, error in row.errors.items():
        yield f'{data}_{network.name}', key, network, f'{key} {error}'
    else:
      single, ten = (row.errors.get(k, '-') for k in (paper.SINGLE_CROP, paper.TEN_CROP))
      argument = f'{network.width_factor:.1f}' if 'resnet' in network.name else ''
      line = f'{argument}  {single} / {ten}'.strip() if row.errors else ''
      yield f'imagenet_{network.name.removesuffix("b")}', argument, network, line


class TablesTest(parameterized.TestCase):
  @parameterized.parameters((2, 28), (3, 2), (4, 7), (5, 24), (6, 9))
  def test_every_row_has_a_file_that_says_so(self, table, number):
    found = list(networks(table))
    self.assertLen(found, number)
    for name, argument, network, line in found:
      model = load(name, *([argument] if argument else [])).model
      for field in dataclasses.fields(network):
        wanted = getattr(network, field.name)
        if wanted:
          self.assertEqual(model[field.name], wanted, f'{name}:{argument}')
      text = (CONFIGS / f'{name}.py').read_text().split('"""')[1]
      self.assertIn(line, text, name)
      self.assertRegex(text, rf'Tables? [\d, and]*{table}', name)
      for part in ('python -m bitnet_jax.main --config=configs/', 'not run'):
        self.assertIn(part, text, name)


class ValidationTest(parameterized.TestCase):
  @parameterized.parameters(
    ('seed', -1, 'out of range'),
    ('num_epochs', math.nan, 'not a finite number'),
    ('num_epochs', math.inf, 'not a finite number'),
    ('global_batch_size', 0, 'out of range; use a value from 1'),
    ('global_batch_size', 'abc', 'not of type int'),
    ('global_batch_size', True, 'not of type int'),
    ('optim.learning_rate', math.nan, 'not a finite number'),
    ('optim.learning_rate', -0.1, 'out of range'),
    ('optim.nesterov', 1, 'not of type bool'),
    ('optim.drop_epochs', (60, 'x'), 'holds no number'),
    ('optim.drop_epochs', (60.5,), 'not whole numbers'),
    ('optim.drop_epochs', (120, 60), 'not rising'),
    ('optim.drop_epochs', (0, 60), 'out of range'),
    ('model.name', 'resnet50', 'not a choice; use one of bitnet, wide_resnet'),
    ('model.dtype', 'float16', 'not a choice; use one of float32, bfloat16'),
    ('data.mean', (1.0, 2.0), 'does not match'),
    ('data.std', (0.0, 1.0, 1.0), 'out of range'),
    ('data.name', 'folder', 'a folder has no default place'),
    ('checkpoint.keep_latest', 0, 'out of range'),
  )
  def test_fault_has_its_line(self, name, value, line):
    config = defaults.default_config()
    set_field(config, name, value)
    with self.assertRaisesRegex(errors.ConfigError, line) as caught:
      validation.validate(config)
    self.assertNotIn('\n', str(caught.exception))
    self.assertEqual(caught.exception.exit_code, 2)

  @parameterized.parameters(
    ('optim.learning_rat', 'did you mean config.optim.learning_rate?'),
    ('learning_rate', 'did you mean config.optim.learning_rate?'),
    ('zzzz', 'see bitnet_jax/config/fields.py'),
  )
  def test_unknown_field_has_a_suggestion(self, name, remedy):
    config = defaults.default_config().unlock()
    *sections, leaf = name.split('.')
    node = config[sections[0]] if sections else config
    node[leaf] = 1.0
    with self.assertRaisesRegex(
      errors.ConfigError, f'config.{name}=1.0: unknown field; '
    ) as caught:
      validation.validate(config)
    self.assertIn(remedy, str(caught.exception))

  def test_empty_section_is_an_unknown_field(self):
    config = defaults.default_config().unlock()
    config.model.new = {}
    with self.assertRaisesRegex(errors.ConfigError, 'config.model.new=.*: unknown field'):
      validation.validate(config)

  def test_missing_field(self):
    config = defaults.default_config().unlock()
    del config.optim['momentum']
    with self.assertRaisesRegex(errors.ConfigError, 'config.optim.momentum=: missing'):
      validation.validate(config)

  def test_stream_hands_over_one_step_at_a_time(self):
    config = defaults.default_config()
    config.data.pipeline, config.steps_per_execution = 'stream', 4
    with self.assertRaisesRegex(errors.ConfigError, 'config.steps_per_execution=4: the stream'):
      validation.validate(config)

  @parameterized.parameters((1, 4, True), (1, 5, False), (2, 5, True), (3, 6, False), (4, 6, True))
  def test_width_divides(self, width, tree_depth, fits):
    config = defaults.default_config()
    config.model.width, config.model.tree_depth = width, tree_depth
    if fits:
      validation.validate(config)
    else:
      with self.assertRaisesRegex(errors.ConfigError, f'config.model.width={width}: 16.width'):
        validation.validate(config)

  def test_integer_where_a_float_is_meant(self):
    config = defaults.default_config()
    set_field(config, 'optim.learning_rate', 1)
    validation.validate(config)


class DevicesTest(parameterized.TestCase):
  @parameterized.parameters(
    (128, 1, 64), (128, 2, 64), (128, 4, 64), (128, 8, 64), (128, 8, 0), (128, 1, 128), (256, 8, 32)
  )
  def test_fits(self, batch, devices, group):
    config = defaults.default_config()
    config.global_batch_size, config.model.batch_norm_group = batch, group
    config.eval.batch_size = 800
    validation.validate_devices(config, devices)

  def test_batch_does_not_divide(self):
    config = defaults.default_config()
    with self.assertRaisesRegex(errors.ConfigError, 'not divisible by 3 devices; use 126 or 129'):
      validation.validate_devices(config, 3)

  @parameterized.parameters((128, 1, 48), (128, 4, 48), (96, 3, 64))
  def test_group_does_not_fit(self, batch, devices, group):
    config = defaults.default_config()
    config.global_batch_size, config.model.batch_norm_group = batch, group
    config.eval.batch_size = 600
    with self.assertRaisesRegex(errors.ConfigError, f'batch_norm_group={group}: does not fit'):
      validation.validate_devices(config, devices)


if __name__ == '__main__':
  absltest.main()
