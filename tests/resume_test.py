"""What may change between a checkpoint and the run that goes on from it, and what is said."""

import contextlib
import io

from absl.testing import absltest, parameterized

from bitnet_jax import config as config_lib
from bitnet_jax import errors, resume

DATA = {'num_examples': 1437, 'class_names': ['0', '1'], 'manifest': 'aa'}


class ConfigTest(parameterized.TestCase):
  def check(self, name, value, allowed=(), **others):
    saved = config_lib.default_config().to_dict()
    config = config_lib.default_config()
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
    ('num_epochs', 300.0), ('data.workers', 3), ('eval.batch_size', 100), ('log.every_steps', 7)
  )
  def test_is_free(self, name, value):
    self.check(name, value)

  def test_length_of_a_cosine_is_not_free(self):
    saved = config_lib.default_config()
    saved.optim.schedule = 'cosine'
    longer = config_lib.default_config()
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
    before = {
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
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
      resume.warn_of_changes(now, before)
    lines = stderr.getvalue().splitlines()
    self.assertLen(lines, 3)
    self.assertIn('packages was jax 0.10.2, is jax 0.12.0: the same examples', lines[0])
    self.assertIn('kernels was xla, is onednn', lines[1])
    self.assertIn('num_devices was 1, is 2', lines[2])

  def test_older_checkpoints_are_of_single_steps(self):
    before = dict.fromkeys(resume.ENVIRONMENT, 1) | {'packages': {}}
    older = {name: value for name, value in before.items() if name != 'repeated'}
    for repeated in (False, True):
      with contextlib.redirect_stderr(io.StringIO()) as stderr:
        resume.warn_of_changes(before | {'repeated': repeated}, older)
      self.assertEqual('repeated was False, is True' in stderr.getvalue(), repeated)
      self.assertLen(stderr.getvalue().splitlines(), repeated)


if __name__ == '__main__':
  absltest.main()
