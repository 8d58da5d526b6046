"""Metrics as programs and TensorBoard read them back."""

import contextlib
import io
import json
import os
import pathlib
import resource
import shutil

from absl.testing import absltest, parameterized
from tensorboard.backend.event_processing import event_accumulator

from bitnet_jax.logs import metric_writer


class MetricWriterTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.workdir = self.create_tempdir().full_path

  def open(self, resume_step=0, tensorboard=True):
    writer = metric_writer.MetricWriter(
      self.workdir, resume_step=resume_step, tensorboard=tensorboard
    )
    self.addCleanup(writer.close)
    return writer

  def rows(self):
    text = pathlib.Path(self.workdir, 'metrics.jsonl').read_text()
    return [json.loads(line) for line in text.splitlines()]

  def scalars(self, tag):
    events = event_accumulator.EventAccumulator(os.path.join(self.workdir, 'tensorboard'))
    events.Reload()
    return [(event.step, round(event.value, 4)) for event in events.Scalars(tag)]

  def test_rows_and_events(self):
    writer = self.open()
    writer.write('train', 1, {'loss': 2.5, 'error': 0.5})
    writer.write('eval', 2, {'loss': 1.5})
    writer.close()
    want = [
      {'kind': 'train', 'step': 1, 'loss': 2.5, 'error': 0.5},
      {'kind': 'eval', 'step': 2, 'loss': 1.5},
    ]
    self.assertEqual(self.rows(), want)
    self.assertEqual(self.scalars('train/loss'), [(1, 2.5)])
    self.assertEqual(self.scalars('eval/loss'), [(2, 1.5)])

  def test_resume_drops_what_lies_after_and_half_a_row(self):
    writer = self.open()
    for step in (1, 2, 3, 4):
      writer.write('train', step, {'loss': float(step)})
    writer.close()
    with open(os.path.join(self.workdir, 'metrics.jsonl'), 'a') as file:
      file.write('{"kind": "train", "st')
    again = self.open(resume_step=2)
    self.assertEqual([row['step'] for row in self.rows()], [1, 2])
    again.write('train', 3, {'loss': 30.0})
    again.close()
    self.assertEqual([row['loss'] for row in self.rows()], [1.0, 2.0, 30.0])
    self.assertEqual(self.scalars('train/loss'), [(1, 1.0), (2, 2.0), (3, 30.0)])

  @parameterized.parameters(
    b'{"kind": "train", "step": \xb2}',
    b'{"kind": "\xf4rain", "step": 2}',
    b'{"kind": "train", "step": "2"}',
    b'{"kind": "train", "step": NaN}',
    b'{"kind": "train", "step": ' + b'[' * 100_000,
    b'\x00',
  )
  def test_resume_drops_a_damaged_row_alone(self, row):
    writer = self.open(tensorboard=False)
    for step in (1, 2, 3):
      writer.write('train', step, {'loss': float(step)})
    path = pathlib.Path(self.workdir, 'metrics.jsonl')
    rows = path.read_bytes().splitlines()
    path.write_bytes(b'\n'.join([rows[0], row, rows[2], b'']))
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
      self.open(resume_step=3, tensorboard=False)
    self.assertEqual([row['step'] for row in self.rows()], [1, 3])
    self.assertEqual(path.read_bytes().splitlines(), [rows[0], rows[2]])
    self.assertEqual(stderr.getvalue(), '')

  def test_fault_is_reported_once_and_ends_nothing(self):
    writer = self.open(tensorboard=False)
    os.mkdir(os.path.join(self.workdir, 'metrics.jsonl'))
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
      writer.write('train', 1, {'loss': 1.0})
      writer.write('train', 2, {'loss': 1.0})
    self.assertLen(stderr.getvalue().splitlines(), 1)
    self.assertIn('metrics are not written', stderr.getvalue())

  def test_directory_that_was_made_anew_gets_no_rows(self):
    writer = self.open(tensorboard=False)
    writer.write('train', 1, {'loss': 1.0})
    shutil.rmtree(self.workdir)
    os.mkdir(self.workdir)
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
      writer.write('train', 2, {'loss': 1.0})
    self.assertEqual(os.listdir(self.workdir), [])
    self.assertRegex(stderr.getvalue(), '^bitnet_jax: warning: metrics are not written: .*\n$')

  def test_full_disk_is_reported_once_and_harms_nothing(self):
    """A limit on the size of files stands for the disk: it ends a write in the middle of a row."""
    writer = self.open()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    self.addCleanup(resource.setrlimit, resource.RLIMIT_FSIZE, limits)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
      for step in range(1, 500):
        writer.write('train', step, {'loss': 2.5, 'error': 0.5})
      writer.close()
    self.assertLen(stderr.getvalue().splitlines(), 1)
    row = '{"kind": "train", "step": 10, "loss": 2.5, "error": 0.5}\n'
    kept = self.rows()
    self.assertBetween(len(kept), 1000 // len(row) - 1, 1000 // len(row) + 1)
    self.assertEqual([row['step'] for row in kept], list(range(1, len(kept) + 1)))


if __name__ == '__main__':
  absltest.main()
