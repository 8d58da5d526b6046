"""What may change between a checkpoint and the run that goes on from it, and what is said."""

import contextlib
import io

import jax
from absl.testing import absltest, parameterized

from bitnet_jax import errors
from bitnet_jax.config import defaults
from bitnet_jax.logs import run_info
from bitnet_jax.training import resume

DATA = {'num_examples': 1437, 'class_names': ['0', '1'], 'manifest': 'aa'}


class ConfigTest(parameterized.TestCase):
  def check(self, name, value, allowed=(), **others):
    saved = defaults.default_config().to_dict()
    config = defaults.default_config()
    config.update_from_flattened_dict({name: value, **others})
    resume.check_config(config, saved, 7, allowed)

  @parameterized.parameters(
    ('seed', 3, 0),
    ('global_batch_size', 256, 128),
    ('optim.learning_rate', 0.5, 0.1),
    ('optim.drop_epochs', (10,), (60, 120, 160)),
    ('augment.flip', False, True),
    ('data.train_split', 'train[:10]', 'train'),
  )
  def test_needs_to_be_allowed(self, name, value, old):
    with self.assertRaises(errors.CheckpointError) as caught:
      self.check(name, value)
    line = f'config.{name}={value}: the checkpoint of step 7 was trained with {old}; restore {old}'
    self.assertStartsWith(str(caught.exception), line)
    self.assertEndsWith(str(caught.exception), f'or allow it: --allow_config_change={name}')
    self.assertEqual(caught.exception.exit_code, 4)
    self.check(name, value, allowed=[name])

  def test_network_is_never_offered(self):
    with self.assertRaises(errors.CheckpointError) as caught:
      self.check('model.width', 8)
    self.assertNotIn('allow', str(caught.exception))

  @parameterized.parameters(
    ('model.width', 8),
    ('model.dtype', 'bfloat16'),
    ('model.batch_norm_epsilon', 1e-3),
    ('model.conv_init', 'fan_in'),
  )
  def test_network_change_is_never_allowed(self, name, value):
    """Shapes that agree are no sign of the same function."""
    with self.assertRaisesRegex(errors.CheckpointError, f'config.{name}={value}: .* a new --workd'):
      self.check(name, value, allowed=[name])

  def test_kernels_are_no_part_of_the_network(self):
    self.check('model.kernels', 'xla')

  def test_field_absent_from_checkpoint_had_its_default(self):
    saved = defaults.default_config().to_dict()
    del saved['augment']['jitter']
    config = defaults.default_config()
    resume.check_config(config, saved, 7, ())
    config.augment.jitter = 0.4
    with self.assertRaisesRegex(
      errors.CheckpointError, 'config.augment.jitter=0.4: .* trained with 0.0; restore 0.0, or'
    ):
      resume.check_config(config, saved, 7, ())

  @parameterized.parameters(
    ('num_epochs', 300.0), ('data.workers', 3), ('eval.batch_size', 100), ('log.every_steps', 7)
  )
  def test_is_free(self, name, value):
    self.check(name, value)

  def test_length_of_a_cosine_is_not_free(self):
    saved = defaults.default_config()
    saved.optim.schedule = 'cosine'
    longer = defaults.default_config()
    longer.optim.schedule, longer.num_epochs = 'cosine', 300.0
    with self.assertRaisesRegex(errors.CheckpointError, 'config.num_epochs=300.0: '):
      resume.check_config(longer, saved.to_dict(), 7, ())


class DataTest(absltest.TestCase):
  def test_same(self):
    resume.check_data(DATA, dict(DATA), 7, ())

  def test_other_examples(self):
    line = 'data num_examples=1000: the checkpoint of step 7 was trained with 1437; restore'
    with self.assertRaisesRegex(errors.CheckpointError, line):
      resume.check_data(DATA | {'num_examples': 1000}, DATA, 7, ['data.manifest'])

  def test_other_manifest_can_be_allowed(self):
    line = 'data manifest=bb: .* trained with aa; .* --allow_config_change=data.manifest'
    with self.assertRaisesRegex(errors.CheckpointError, line):
      resume.check_data(DATA | {'manifest': 'bb'}, DATA, 7, ())
    resume.check_data(DATA | {'manifest': 'bb'}, DATA, 7, ['data.manifest'])


class EnvironmentTest(absltest.TestCase):
  def test_says_what_differs(self):
    settings = {'jax_default_matmul_precision': None, 'XLA_FLAGS': ''}
    before = {
      'python': '3.11.9',
      'settings': settings,
      'packages': {'jax': '0.10.2', 'numpy': '2.4.6'},
      'kernels': 'xla',
      'repeated': False,
      'device_kind': 'cpu',
      'num_devices': 1,
      'cores': 2,
      'num_processes': 1,
    }
    packages = {'jax': '0.12.0', 'numpy': '2.4.6'}
    now = before | {'packages': packages, 'kernels': 'onednn', 'num_devices': 2}
    now |= {'python': '3.12.3', 'settings': settings | {'XLA_FLAGS': '--xla_cpu_fast=true'}}
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
      resume.warn_of_changes(now, before)
    lines = stderr.getvalue().splitlines()
    self.assertLen(lines, 5)
    for line, text in zip(
      lines,
      (
        'python was 3.11.9, is 3.12.3',
        'packages was jax 0.10.2, is jax 0.12.0',
        'settings was XLA_FLAGS , is XLA_FLAGS --xla_cpu_fast=true',
        'kernels was xla, is onednn',
        'num_devices was 1, is 2',
      ),
      strict=True,
    ):
      order = 'the same examples in the same order, but the bits may differ'
      self.assertEqual(line, f'bitnet_jax: warning: {text}: {order}')

  def test_other_random_numbers_augment_otherwise(self):
    now = dict.fromkeys(resume.ENVIRONMENT, 1) | run_info.environment()
    with jax.default_prng_impl('rbg'), jax.threefry_partitionable(False):
      other = {**now, **run_info.environment()}
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
      resume.warn_of_changes(now, now)
      resume.warn_of_changes(other, now)
    self.assertEqual(
      stderr.getvalue(),
      'bitnet_jax: warning: settings was jax_default_prng_impl threefry2x32, '
      'jax_threefry_partitionable True, is jax_default_prng_impl rbg, jax_threefry_partitionable '
      'False: the same examples in the same order, but cropped, mirrored and colored at random in '
      'another way\n',
    )

  def test_older_checkpoints_are_of_single_steps(self):
    before = dict.fromkeys(resume.ENVIRONMENT, 1) | {'packages': {}, 'settings': {}}
    older = {k: value for k, value in before.items() if k not in ('repeated', 'settings')}
    for repeated in (False, True):
      with contextlib.redirect_stderr(io.StringIO()) as stderr:
        resume.warn_of_changes(before | {'repeated': repeated}, older)
      self.assertEqual('repeated was False, is True' in stderr.getvalue(), repeated)
      self.assertLen(stderr.getvalue().splitlines(), repeated)


if __name__ == '__main__':
  absltest.main()
