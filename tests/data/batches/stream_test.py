"""The stream: the same batches whatever the workers, the parts and the start; and how it fails."""

import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import numpy as np
from absl.testing import absltest, parameterized

from bitnet_jax import errors
from bitnet_jax.data.batches import examples, order, resident, stream
from bitnet_jax.data.images import crop
from tests.helpers.memory_source import CROP, NUMBER, Source, training
from tests.helpers.paths import program
from tests.helpers.processes import environment


def read(batches, start, number, workers):
  reader = stream.iterate(batches, start, workers=workers, timeout_seconds=120)
  try:
    return [next(reader) for _ in range(number)]
  finally:
    reader.close()


def assert_same(got, want):
  for one, other in zip(got, want, strict=True):
    for name in ('image', 'label', 'mask', 'skipped'):
      np.testing.assert_array_equal(one[name], other[name], name)


def workers_alive():
  return [p for p in multiprocessing.active_children() if p.name.startswith('grain')]


class TrainingBatchesTest(parameterized.TestCase):
  def test_examples_are_those_of_the_resident_way(self):
    for epoch in range(2):
      indices = order.epoch_order(7, epoch, NUMBER)
      want = resident.training_order(indices, 6, 1)[0]
      for step_in_epoch in range(3):
        batch = training()(3 * epoch + step_in_epoch)
        np.testing.assert_array_equal(batch['label'], want[step_in_epoch])
        np.testing.assert_array_equal(batch['mask'], 1)

  def test_crops_differ_by_epoch_and_place(self):
    source = Source()
    seen = {}
    for step in range(9):
      for image, label in zip(
        *(training(source)(step)[k] for k in ('image', 'label')), strict=True
      ):
        seen.setdefault(int(label), set()).add(image.tobytes())
    often = [crops for crops in seen.values() if len(crops) > 1]
    self.assertGreater(len(often), 10)

  def test_parts_of_processes_make_the_whole(self):
    for step in (0, 4):
      parts = [training(first=first, count=2)(step) for first in (0, 2, 4)]
      for name, whole in training()(step).items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in parts]), whole)

  def test_image_is_the_crop_drawn_for_its_place(self):
    batch = training()(5)
    source = Source()
    for place, label in enumerate(batch['label'].tolist()):
      bits = crop.example_random_bits(7, 5, place)
      want = CROP(source[label].encoded, 3, 'k', bits)
      np.testing.assert_array_equal(batch['image'][place], want)


class EvaluationBatchesTest(parameterized.TestCase):
  @parameterized.parameters(1, 5, 8, 23, 40)
  def test_every_example_once(self, size):
    batches = stream.EvaluationBatches(Source(), size, 0, size, crop.CenterCrop(8))
    self.assertLen(batches, -(-NUMBER // size))
    labels = [b['label'][b['mask'] == 1] for b in map(batches, range(len(batches)))]
    np.testing.assert_array_equal(np.concatenate(labels), np.arange(NUMBER))

  def test_goes_round(self):
    batches = stream.EvaluationBatches(Source(), 8, 0, 8, crop.CenterCrop(8))
    assert_same([batches(4)], [batches(1)])

  def test_parts_of_processes_make_the_whole(self):
    # The last part of the last batch holds no example at all.
    for number in range(3):
      whole = stream.EvaluationBatches(Source(), 10, 0, 10, crop.CenterCrop(8))(number)
      parts = [
        stream.EvaluationBatches(Source(), 10, first, 5, crop.CenterCrop(8))(number)
        for first in (0, 5)
      ]
      for name in whole:
        joined = np.concatenate([part[name] for part in parts])
        np.testing.assert_array_equal(joined, whole[name])


class IterateTest(parameterized.TestCase):
  def test_any_number_of_workers_and_any_start(self):
    want = [training()(step) for step in range(8)]
    for workers, start in ((0, 0), (3, 2)):
      assert_same(read(training(), start, 8 - start, workers), want[start:])
    self.assertEmpty(workers_alive())

  def test_batches_stay_whole_after_the_end(self):
    """What the workers hand over lies in shared memory that is freed."""
    batches = read(training(), 0, 3, workers=1)
    assert_same(batches, [training()(step) for step in range(3)])
    self.assertIsNone(batches[0]['image'].base)


class BrokenImageTest(parameterized.TestCase):
  @parameterized.parameters(0, 1)
  def test_ends_the_run_with_its_key(self, workers):
    indices = order.epoch_order(7, 0, NUMBER)
    source = Source(broken=(int(indices[8]),))
    reader = stream.iterate(training(source), 0, workers=workers, timeout_seconds=60)
    next(reader)
    with self.assertRaisesRegex(errors.DataError, f'image=k{indices[8]}: damaged'):
      next(reader)
    reader.close()
    self.assertEmpty(workers_alive())

  def test_is_replaced_by_the_next_one_and_told(self):
    indices = order.epoch_order(7, 0, NUMBER)
    bad = int(indices[2])
    source = Source(broken=(bad, (bad + 1) % NUMBER))
    batch, whole = training(source, skip=True)(0), training()(0)
    self.assertEqual(batch['skipped'][2], bad)
    self.assertEqual(batch['label'][2], (bad + 2) % NUMBER)
    np.testing.assert_array_equal(batch['mask'], 1)
    others = [i for i in range(6) if batch['skipped'][i] == examples.NONE]
    np.testing.assert_array_equal(batch['image'][others], whole['image'][others])

  def test_is_masked_in_evaluation(self):
    batches = stream.EvaluationBatches(Source(broken=(3,)), 8, 0, 8, crop.CenterCrop(8), skip=True)
    batch = batches(0)
    np.testing.assert_array_equal(batch['mask'], np.arange(8) != 3)
    self.assertEqual(batch['skipped'][3], 3)

  def test_nothing_can_be_read(self):
    with self.assertRaisesRegex(errors.DataError, 'no example can be read'):
      training(Source(broken=tuple(range(NUMBER))), skip=True)(0)

  def test_label_out_of_range(self):
    source = Source(class_names=('0', '1'))
    with self.assertRaisesRegex(errors.DataError, r'image=k\d+: label \d+ is not in 0..1'):
      training(source)(0)


def is_alive(pid):
  try:
    return pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
  except OSError:
    return False


class LostWorkerTest(parameterized.TestCase):
  @parameterized.parameters(
    (
      signal.SIGKILL,
      errors.PeerError,
      r'config.data.workers=1: worker process .* exit code -9; run again',
    ),
    (signal.SIGBUS, errors.StorageError, r'shared memory=/dev/shm: no room for a batch; enlarge'),
  )
  def test_killed(self, number, kind, message):
    reader = stream.iterate(training(), 0, workers=1, timeout_seconds=60)
    next(reader)
    [worker] = workers_alive()
    os.kill(worker.pid, number)
    start = time.monotonic()
    with self.assertRaisesRegex(kind, message):
      for _ in range(20):  # Those that it had made come first.
        next(reader)
    self.assertLess(time.monotonic() - start, 20)
    self.assertEmpty(workers_alive())

  def test_stopped(self):
    reader = stream.iterate(training(), 0, workers=1, timeout_seconds=60)
    next(reader)
    reader._timeout = 2
    [worker] = workers_alive()
    os.kill(worker.pid, signal.SIGSTOP)
    with self.assertRaisesRegex(errors.PeerError, 'no batch came for 2 s; a worker is stopped'):
      for _ in range(20):
        next(reader)
    worker.join(10)
    self.assertEmpty(workers_alive())

  def test_asked_to_stop_while_one_hangs(self):
    asked = threading.Event()
    reader = stream.iterate(training(), 0, workers=1, timeout_seconds=60, stop=asked.is_set)
    next(reader)
    [worker] = workers_alive()
    os.kill(worker.pid, signal.SIGSTOP)
    threading.Timer(1, asked.set).start()
    start = time.monotonic()
    with self.assertRaises(stream.Stopped):
      for _ in range(20):
        next(reader)
    reader.close()
    self.assertBetween(time.monotonic() - start, 0.5, 10)
    worker.join(10)
    self.assertEmpty(workers_alive())

  def test_asked_to_stop_while_storage_hangs(self):
    hangs = threading.Event()
    self.addCleanup(hangs.set)
    reader = stream.iterate(
      lambda number: hangs.wait(60), 0, workers=0, timeout_seconds=60, stop=lambda: True
    )
    start = time.monotonic()
    with self.assertRaises(stream.Stopped):
      next(reader)
    reader.close()
    self.assertLess(time.monotonic() - start, 10)

  def test_what_is_there_is_given_though_asked_to_stop(self):
    reader = stream.iterate(training(), 0, workers=0, timeout_seconds=60, stop=lambda: True)
    self.addCleanup(reader.close)
    deadline = time.monotonic() + 60
    while not reader._queue.full():
      self.assertLess(time.monotonic(), deadline)
      time.sleep(0.01)
    assert_same([next(reader)], [training()(0)])

  def test_do_not_outlive_a_parent_that_was_killed(self):
    with subprocess.Popen(
      [sys.executable, program('stream_parent')],
      env=environment(),
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      text=True,
    ) as parent:
      pids = parent.stdout.readline().split()
      self.assertLen(pids, 2)
      parent.kill()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and any(map(is_alive, pids)):
      time.sleep(0.1)
    self.assertFalse([pid for pid in pids if is_alive(pid)])


if __name__ == '__main__':
  absltest.main()
