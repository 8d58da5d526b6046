"""Tests of the order of examples: a contract that later versions must keep."""

import hashlib

import numpy as np
from absl.testing import absltest, parameterized

from bitnet_jax.data.batches import order


class EpochOrderTest(parameterized.TestCase):
  @parameterized.parameters(
    (0, 0, 10, [1, 4, 5, 6, 8, 2, 0, 3, 9, 7]),
    (0, 1, 10, [7, 8, 6, 2, 9, 3, 1, 0, 4, 5]),
    (1, 0, 10, [0, 5, 7, 4, 8, 2, 6, 9, 3, 1]),
  )
  def test_golden(self, seed, epoch, num_examples, expected):
    got = order.epoch_order(seed, epoch, num_examples)
    self.assertEqual(got.dtype, np.int32)
    self.assertEqual(got.tolist(), expected)

  def test_golden_of_cifar(self):
    digest = hashlib.sha256(order.epoch_order(42, 199, 50_000).tobytes()).hexdigest()
    self.assertEqual(digest, '81cd9272bd2446ee8c0effb2e664ca976dcffd70238bea2f03adcb5370194ed1')

  @parameterized.parameters(0, 1, 2, 1000, 65_537)
  def test_each_example_once(self, num_examples):
    got = order.epoch_order(7, 3, num_examples)
    np.testing.assert_array_equal(np.sort(got), np.arange(num_examples))

  def test_uniform(self):
    # Where example 0 lands over 6,000 epochs: chi-square with 5 degrees of freedom.
    places = [int(np.argmin(order.epoch_order(0, epoch, 6))) for epoch in range(6000)]
    counts = np.bincount(places, minlength=6)
    self.assertLess(((counts - 1000) ** 2 / 1000).sum(), 20.5)  # p = 0.001.

  def test_seed_and_epoch_do_not_mix(self):
    first = [order.epoch_order(s, e, 50).tolist() for s in range(5) for e in range(5)]
    self.assertLen({tuple(x) for x in first}, 25)

  @parameterized.parameters((-1, 0, 5), (0, -1, 5), (0, 0, -5), (0, 0, 2**31))
  def test_out_of_range(self, seed, epoch, num_examples):
    with self.assertRaisesRegex(ValueError, 'out of range'):
      order.epoch_order(seed, epoch, num_examples)


if __name__ == '__main__':
  absltest.main()
