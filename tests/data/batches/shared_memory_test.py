"""Batches through shared memory: whole, in any order of use, and leaving nothing behind."""

import errno
import os
import pathlib
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized

from bitnet_jax import errors
from bitnet_jax.data.batches import shared_memory


def batch_of(number, size=5):
  """A batch that tells its number."""
  image = np.random.default_rng(number).integers(0, 256, (size, 7, 3), np.uint8)
  return {'image': image, 'label': np.full(size, number, np.int32)}


def blocks():
  mine = f'{shared_memory.name_of(os.getppid())}*'  # Here the sender is in the parent's place.
  return {path.name for path in pathlib.Path('/dev/shm').glob(mine)}


class HandoverTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.sender, self.receiver = shared_memory.Sender(batch_of), shared_memory.Receiver()
    self.addCleanup(self.receiver.close)
    self.addCleanup(self.sender.close)

  def assert_is_batch(self, batch, number, size=5):
    self.assertEqual(set(batch), {'image', 'label'})
    for name, array in batch_of(number, size).items():
      np.testing.assert_array_equal(batch[name], array)
      self.assertEqual(batch[name].dtype, array.dtype)
      self.assertIsNone(batch[name].base)

  def test_one_block_is_used_again(self):
    used = set()
    for number in range(5):
      sent = self.sender(number)
      used.add(sent['image']['block'])
      self.assert_is_batch(self.receiver(sent), number)
    self.assertLen(used, 1)

  def test_nothing_is_overwritten_before_it_was_taken(self):
    sent = [self.sender(number) for number in range(4)]
    self.assertLen({parcel['image']['block'] for parcel in sent}, 4)
    for number in (2, 0):
      self.assert_is_batch(self.receiver(sent[number]), number)
    again = [self.sender(number) for number in (4, 5)]
    self.assertEqual(
      {parcel['image']['block'] for parcel in again}, {sent[i]['image']['block'] for i in (2, 0)}
    )
    for number, parcel in ((1, sent[1]), (5, again[1]), (3, sent[3]), (4, again[0])):
      self.assert_is_batch(self.receiver(parcel), number)

  def test_what_was_received_stays(self):
    first = self.receiver(self.sender(1))
    self.receiver(self.sender(2))
    self.assert_is_batch(first, 1)

  def test_larger_batch_has_a_block_of_its_own(self):
    sizes = shared_memory.Sender(lambda number: batch_of(number, size=number))
    self.addCleanup(sizes.close)
    for number in (2, 9, 3):
      self.assert_is_batch(self.receiver(sizes(number)), number, size=number)

  def test_batch_that_no_sender_gave_is_copied(self):
    batch = batch_of(3)
    received = self.receiver(batch)
    self.assert_is_batch(received, 3)
    self.assertFalse(np.shares_memory(received['image'], batch['image']))

  def test_no_room(self):
    full = OSError(errno.ENOSPC, 'No space left on device')
    with (
      mock.patch.object(os, 'posix_fallocate', side_effect=full),
      self.assertRaisesRegex(
        errors.StorageError, r'shared memory=/dev/shm: no room for a batch of 0\.0 MB \(No space'
      ),
    ):
      self.sender(0)
    self.sender.close()
    self.assertEqual(blocks(), set())

  def test_leaves_no_name_behind(self):
    sent = [self.sender(number) for number in range(3)]
    self.receiver(sent[0])
    names = {parcel['image']['block'] for parcel in sent}
    self.assertEqual(blocks() & names, names - {sent[0]['image']['block']})
    self.sender.close()
    self.assertEqual(blocks() & names, set())


if __name__ == '__main__':
  absltest.main()
