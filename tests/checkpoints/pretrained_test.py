"""Loading what a run left, and starting another from it."""

import contextlib
import io
import json
import pathlib
import shutil
import tempfile
from unittest import mock

import jax
import numpy as np
from absl.testing import absltest, parameterized

from bitnet_jax import errors
from bitnet_jax.checkpoints import manager, pretrained
from bitnet_jax.config import validation
from bitnet_jax.data.datasets import prepared
from bitnet_jax.training import resume
from bitnet_jax.training.plan import Plan
from tests.helpers import fake_run


class TrainedTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.data_dir = cls.enterClassContext(tempfile.TemporaryDirectory())
    prepared.prepare('digits', cls.data_dir)
    cls.whole = cls.enterClassContext(tempfile.TemporaryDirectory())
    cls.config = fake_run.make_config(cls.data_dir)
    cls.states = fake_run.make_run(cls.whole, cls.config, seeds=(1, 2))

  def setUp(self):
    super().setUp()
    self.workdir = self.enterContext(tempfile.TemporaryDirectory())
    shutil.copytree(self.whole, self.workdir, dirs_exist_ok=True)

  def assert_trees_equal(self, got, want):
    self.assertEqual(jax.tree.structure(got), jax.tree.structure(want))
    jax.tree.map(np.testing.assert_array_equal, got, want)

  def files(self):
    return {p: p.read_bytes() for p in pathlib.Path(self.workdir).rglob('*') if p.is_file()}

  @parameterized.parameters((0, 2), (1, 1), (2, 2))
  def test_loads_a_step_and_touches_nothing(self, asked, step):
    before = self.files()
    network = pretrained.load(self.workdir, asked)
    self.assertEqual(network.step, step)
    self.assert_trees_equal(network.variables['params'], self.states[step - 1].params)
    self.assert_trees_equal(network.variables['batch_stats'], self.states[step - 1].batch_stats)
    self.assertEqual(network.config, self.config)
    self.assertEqual(network.class_names, tuple('0123456789'))
    self.assertEqual(self.files(), before)

  def damage(self, step):
    files = [
      p for p in pathlib.Path(self.workdir, 'checkpoints', str(step)).rglob('*') if p.is_file()
    ]
    largest = max(files, key=lambda p: p.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)

  def load(self):
    """The newest step that is whole, with what it printed to stderr."""
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
      return pretrained.load(self.workdir), stderr.getvalue()

  def test_damaged_step(self):
    self.assertEqual(self.load()[1], '')
    self.damage(2)
    network, warning = self.load()
    self.assertEqual((network.step, list(network.passed_over)), (1, [2]))
    fault = network.passed_over[2]
    self.assertStartsWith(fault, 'sha256 mismatch in state/')
    self.assertEqual(warning, f'bitnet_jax: warning: step 2: {fault}; using step 1\n')
    with self.assertRaisesRegex(errors.CheckpointError, 'checkpoint=2: sha256 mismatch in'):
      pretrained.load(self.workdir, 2)
    self.damage(1)
    with self.assertRaisesRegex(errors.CheckpointError, 'checkpoint=1: sha256 mismatch in'):
      pretrained.load(self.workdir)

  def test_lost_step(self):
    shutil.rmtree(f'{self.workdir}/checkpoints/2')
    network, warning = self.load()
    self.assertEqual((network.step, network.passed_over), (1, {2: 'is missing'}))
    self.assertEqual(warning, 'bitnet_jax: warning: step 2 is missing; using step 1\n')

  def test_unverified_files_are_not_used(self):
    for name in ('run.json', 'config.json'):
      pathlib.Path(self.workdir, name).write_text('{"derived": {"class_names": ["swapped"]}}')
    network = pretrained.load(self.workdir)
    self.assertEqual(network.class_names, tuple('0123456789'))
    self.assertEqual(network.image_shape, (8, 8, 1))

  def test_new_run_starts_from_newest_or_named_step(self):
    """What it began with must not depend on what happened to a disk."""
    self.damage(2)
    line = f'config.init_from={self.workdir}: step 2: sha256 mismatch in .*; name the step to start'
    named = f'{self.workdir}/checkpoints/1'
    with self.assertRaisesRegex(errors.CheckpointError, f'{line} from: {named}$') as caught:
      pretrained.load_from(self.workdir)
    self.assertEqual(caught.exception.exit_code, 4)
    self.assertEqual(pretrained.load_from(named).step, 1)

  @parameterized.parameters(
    ('{}/absent', ': holds no checkpoints; name the work directory of a run'),
    ('{}/checkpoints/7', ': step 7: not saved in .*; choose from 2, 1'),
    ('{}/checkpoints/2', ': checkpoint 2: sha256 mismatch in .*; choose another step'),
  )
  def test_bad_start_is_named_by_its_field(self, path, line):
    self.damage(2)
    path = path.format(self.workdir)
    with self.assertRaisesRegex(errors.CheckpointError, f'^config.init_from={path}{line}'):
      pretrained.load_from(path)

  def test_path_of_a_step(self):
    path = f'{self.workdir}/checkpoints/1'
    self.assertEqual(pretrained.load_from(path).step, 1)
    self.assertEqual(pretrained.load_from(self.workdir).step, 2)

  def test_config_from_json(self):
    made = fake_run.make_config(self.data_dir, **{'optim.drop_epochs': (5, 9)})
    tree = json.loads(json.dumps(made.to_dict()))
    self.assertEqual(pretrained.config_from_json(tree), made)
    del tree['data']['pipeline']  # As a version without that field wrote it.
    self.assertEqual(pretrained.config_from_json(tree).data.pipeline, 'resident')
    tree['optim']['lr'] = 1
    with self.assertRaisesRegex(errors.CheckpointError, 'config.optim.lr=1: unknown field'):
      pretrained.config_from_json(tree)
    validation.validate(made)

  def test_transplant_takes_all_but_the_head(self):
    new = self.states[0]
    other = {**new.params, 'head': {k: np.ones((3, 7)) for k in new.params['head']}}
    params, batch_stats = pretrained.transplant(
      other, new.batch_stats, f'{self.workdir}/checkpoints/2'
    )
    old = self.states[1]
    self.assertIs(params['head'], other['head'])
    self.assert_trees_equal(
      {k: v for k, v in params.items() if k != 'head'},
      {k: v for k, v in old.params.items() if k != 'head'},
    )
    self.assert_trees_equal(batch_stats, old.batch_stats)
    self.assertTrue((params['stem_conv']['kernel'] != new.params['stem_conv']['kernel']).any())

  def test_a_new_run_starts_from_it(self):
    made = fake_run.make_config(self.data_dir, init_from=f'{self.workdir}/checkpoints/2')
    old, new = self.states[1], self.states[0]
    folder = self.create_tempdir().full_path
    with contextlib.closing(manager.Checkpoints(folder)) as none_yet:
      job = mock.Mock(config=made, plan=Plan(22, 66))
      state, _ = resume.restore(job, none_yet, new, ())
    self.assert_trees_equal(state.params['stem_conv'], old.params['stem_conv'])
    self.assert_trees_equal(state.params['head'], new.params['head'])
    self.assert_trees_equal(state.batch_stats, old.batch_stats)
    self.assertEqual(state.step, 0)

  def test_transplant_of_other_sizes(self):
    wrong = {**self.states[0].params, 'stem_conv': {'kernel': np.zeros((3, 3, 3, 16))}}
    with self.assertRaisesRegex(
      errors.CheckpointError,
      r'config.init_from=.*: has stem_conv/kernel \(3, 3, 1, 16\), the new one \(3, 3, 3, 16\)',
    ):
      pretrained.transplant(wrong, self.states[0].batch_stats, self.workdir)

  def test_absent(self):
    for path in ('/absent', self.data_dir):
      with self.assertRaisesRegex(
        errors.CheckpointError, 'holds no checkpoints; name the work directory'
      ):
        pretrained.load(path)


if __name__ == '__main__':
  absltest.main()
