"""The evaluation command against a plain NumPy rendering of it."""

import contextlib
import csv
import io
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized
from PIL import Image

from bitnet_jax import errors
from bitnet_jax.config import validation
from bitnet_jax.data.batches import arrays
from bitnet_jax.data.datasets import sources
from bitnet_jax.data.images import crop
from bitnet_jax.training import evaluate_run, evaluation
from tests.helpers import fake_run
from tests.helpers.evaluate_case import EvaluateCase
from tests.helpers.paths import ROOT


def read_csv(path):
  with open(path, newline='') as file:
    return list(csv.DictReader(file))


class EvaluateTest(EvaluateCase):
  @parameterized.parameters((8, 'resident'), (40, 'resident'), (360, 'resident'), (56, 'stream'))
  def test_every_example_counts_once(self, batch_size, pipeline):
    with tempfile.TemporaryDirectory() as workdir:
      made = fake_run.make_config(self.data_dir, **{'data.pipeline': pipeline, 'data.workers': 0})
      fake_run.make_run(workdir, made, seeds=(3, 4))
      result = evaluate_run.evaluate(workdir, batch_size=batch_size)
      self.assertEqual((result['count'], result['examples'], result['step']), (360, 360, 2))
      self.assert_result(result, self.expect(self.logits(self.loaded.image), self.loaded.label))

  def test_files(self):
    result = evaluate_run.evaluate(self.workdir, step=1)
    folder = pathlib.Path(self.workdir, 'evaluation')
    written = json.loads((folder / 'test_1crop_step1.json').read_text())
    self.assertEqual({**written, 'file': result['file']}, result)
    logits, labels = self.logits(self.loaded.image, step=1), self.loaded.label
    self.assert_result(written, self.expect(logits, labels))
    rows = read_csv(folder / 'test_1crop_step1_classes.csv')
    self.assertEqual([row['class'] for row in rows], list('0123456789'))
    for label, row in enumerate(rows):
      chosen = labels == label
      self.assertEqual(int(row['examples']), chosen.sum())
      for name, value in self.expect(logits[chosen], labels[chosen]).items():
        if name != 'loss':
          self.assertAlmostEqual(float(row[name]), value, places=6)
    confusion = np.zeros((10, 10), int)
    for row in read_csv(folder / 'test_1crop_step1_confusion.csv'):
      confusion[int(row['class']), int(row['predicted'])] = int(row['count'])
    want = np.zeros((10, 10), int)
    np.add.at(want, (labels, logits.argmax(axis=1)), 1)
    np.testing.assert_array_equal(confusion, want)

  def test_ten_crops_average_logits(self):
    result = evaluate_run.evaluate(self.workdir, crops=10, resize=11, workers=0)
    total = np.zeros((360, 10))
    for view in range(5):
      images = np.stack(
        [
          crop.five_crops(crop.resize(image, 11, 11, antialias=False), 8)[view]
          for image in self.loaded.image
        ]
      )
      total += self.logits(images) + self.logits(images[:, :, ::-1])
    self.assertEqual(result['count'], 360)
    self.assert_result(result, self.expect(total / 10, self.loaded.label))

  def test_any_split(self):
    result = evaluate_run.evaluate(self.workdir, split='train[:50]')
    self.assertEqual((result['count'], result['split']), (50, 'train[:50]'))
    self.assertTrue(
      pathlib.Path(self.workdir, 'evaluation/train_50_1crop_step2.json').exists()
      or pathlib.Path(result['file']).exists()
    )
    loaded = arrays.load_arrays(sources.open_source('digits', 'train[:50]', self.data_dir), 8)
    self.assert_result(result, self.expect(self.logits(loaded.image), loaded.label))

  @parameterized.parameters(
    ({'crops': 10}, errors.ConfigError, '^resize=0: ten crops of 8 .*; give --resize=9$'),
    ({'split': 'nope'}, errors.DataError, 'split=nope: not a split'),
    ({'batch_size': 12}, errors.ConfigError, 'batch_size=12: not divisible by 8 devices; use 8'),
    ({'step': 7}, errors.CheckpointError, 'step=7: not saved in .*; choose from 2, 1'),
    ({'data_dir': '/absent'}, errors.DataError, 'is not prepared; run python -m'),
  )
  def test_refuses(self, options, kind, line):
    with self.assertRaisesRegex(kind, line):
      evaluate_run.evaluate(self.workdir, **options)

  @parameterized.parameters(
    ({'batch_size': 2**21}, '^batch_size=2097152: out of range; use a value from 1 to'),
    ({'workers': 5000}, '^workers=5000: out of range; use a value from -1 to 1024'),
    ({'resize': 10000}, '^resize=10000: out of range; use a value from 0 to 8192'),
  )
  def test_flag_at_fault_is_named_as_it_was_given(self, options, line):
    with self.assertRaisesRegex(errors.ConfigError, line):
      evaluate_run.evaluate(self.workdir, **options)

  def test_run_of_several_steps_a_call_can_be_resized(self):
    """The stream, which resizes, has no such calls in training."""
    made = fake_run.make_config(self.data_dir, steps_per_execution=10)
    evaluate_run.override(made, resize=9)
    validation.validate(made)
    self.assertEqual((made.data.pipeline, made.eval.resize), ('stream', 9))

  @parameterized.parameters('file', 'link')
  def test_unwritable_results_are_refused_before_work(self, kind):
    with tempfile.TemporaryDirectory() as workdir:
      shutil.copytree(self.workdir, workdir, dirs_exist_ok=True)
      place = pathlib.Path(workdir, 'evaluation')
      shutil.rmtree(place, ignore_errors=True)
      if kind == 'file':
        place.touch()
      else:
        place.symlink_to('nowhere')
      work = self.enterContext(mock.patch.object(evaluation, 'Evaluator'))
      line = f'evaluation={place}: File exists; move it elsewhere, or name another'
      with self.assertRaisesRegex(errors.StorageError, line) as caught:
        evaluate_run.evaluate(workdir)
      self.assertEqual(caught.exception.exit_code, 6)
      work.assert_not_called()

  def test_older_step_is_told_and_written_down(self):
    with tempfile.TemporaryDirectory() as workdir:
      shutil.copytree(self.workdir, workdir, dirs_exist_ok=True)
      pathlib.Path(workdir, 'checkpoints', '2', 'metrics', 'metrics').unlink()
      with contextlib.redirect_stderr(io.StringIO()) as stderr:
        result = evaluate_run.evaluate(workdir)
      written = json.loads(pathlib.Path(result['file']).read_text())
    fault = 'metrics/metrics is missing'
    self.assertEqual(stderr.getvalue(), f'bitnet_jax: warning: step 2: {fault}; using step 1\n')
    self.assertEqual((written['step'], written['passed_over']), (1, {'2': fault}))

  def test_data_of_other_classes(self):
    with tempfile.TemporaryDirectory() as root, tempfile.TemporaryDirectory() as workdir:
      for split in ('train', 'test'):
        for name in 'ab':
          folder = pathlib.Path(root, split, name)
          folder.mkdir(parents=True)
          for number in range(64):
            Image.new('RGB', (8, 8)).save(folder / f'{number}.png')
      made = fake_run.make_config(
        root,
        **{
          'data.name': 'folder',
          'data.image_size': 8,
          'data.mean': (1.0,) * 3,
          'data.std': (1.0,) * 3,
        },
      )
      fake_run.make_run(workdir, made)
      pathlib.Path(root, 'train', 'b').rename(pathlib.Path(root, 'train', 'c'))
      pathlib.Path(root, 'test', 'b').rename(pathlib.Path(root, 'test', 'c'))
      with self.assertRaisesRegex(errors.DataError, 'split=test: has 2 classes, others than the 2'):
        evaluate_run.evaluate(workdir)


class CommandTest(EvaluateCase):
  def test_prints_one_line(self):
    done = subprocess.run(
      [sys.executable, '-m', 'bitnet_jax.evaluate', f'--workdir={self.workdir}'],
      cwd=ROOT,
      capture_output=True,
      text=True,
      check=False,
    )
    self.assertEqual((done.returncode, done.stderr), (0, ''))
    want = self.expect(self.logits(self.loaded.image), self.loaded.label)
    self.assertStartsWith(
      done.stdout,
      f'test, 1 crop(s), step 2: top-1 error {want["error"]:.2%}, '
      f'top-5 error {want["error_top5"]:.2%}, loss {want["loss"]:.4f} (360 examples); ',
    )

  def test_no_run(self):
    empty = self.enterContext(tempfile.TemporaryDirectory())
    with self.assertRaisesRegex(errors.CheckpointError, 'workdir=.*: holds no checkpoints'):
      evaluate_run.evaluate(empty)


if __name__ == '__main__':
  absltest.main()
