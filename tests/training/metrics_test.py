"""Loss, top-k and masked sums against values computed by hand."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bitnet_jax.training import metrics

NAN = float('nan')
INF = float('inf')


def numpy_cross_entropy(logits, labels):
  logits = np.float64(logits)
  top = logits.max(axis=1)
  log_sum = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
  return log_sum - logits[np.arange(len(labels)), labels]


class CrossEntropyTest(parameterized.TestCase):
  def test_random_logits(self):
    random = np.random.default_rng(0)
    logits = random.normal(0, 5, (64, 10)).astype(np.float32)
    labels = random.integers(0, 10, 64)
    got = metrics.cross_entropy(logits, labels)
    np.testing.assert_allclose(got, numpy_cross_entropy(logits, labels), rtol=1e-5, atol=1e-6)

  @parameterized.parameters(
    ([0.0, 0.0, 0.0, 0.0], 2, np.log(4)),
    ([np.log(3), 0.0], 0, np.log(4 / 3)),
    ([1e4, 0.0, -1e4], 0, 0.0),
    ([1e4, 0.0, -1e4], 2, 2e4),
    ([-1e30, -1e30], 1, np.log(2)),
    ([12345.0, 12345.0, 12344.0], 0, np.log(2 + np.exp(-1))),
  )
  def test_by_hand(self, logits, label, want):
    got = metrics.cross_entropy(jnp.array([logits]), jnp.array([label]))
    np.testing.assert_allclose(got, [want], rtol=1e-6)

  def test_bfloat16_logits_are_summed_in_float32(self):
    logits = jnp.zeros((1, 1000), jnp.bfloat16)
    loss = metrics.cross_entropy(logits, jnp.array([0]))
    self.assertEqual(loss.dtype, jnp.float32)
    np.testing.assert_allclose(loss, [np.log(1000)], rtol=1e-6)

  def test_gradient_is_softmax_minus_one_hot(self):
    logits = jnp.array([[1.0, 2.0, 0.5]])
    got = jax.grad(lambda x: metrics.cross_entropy(x, jnp.array([1])).sum())(logits)
    share = np.exp([1.0, 2.0, 0.5]) / np.exp([1.0, 2.0, 0.5]).sum()
    np.testing.assert_allclose(got, [share - [0, 1, 0]], rtol=1e-5)


class TopKTest(parameterized.TestCase):
  @parameterized.parameters(
    # label's rank is 1, 2, 3, 4
    (0, [True, True, True, True]), (2, [False, True, True, True]),
    (3, [False, False, True, True]), (1, [False, False, False, True]),
  )  # fmt: skip
  def test_rank(self, label, want):
    logits = jnp.array([[9.0, 1.0, 8.0, 7.0]])
    got = [bool(metrics.in_top_k(logits, jnp.array([label]), k)[0]) for k in (1, 2, 3, 4)]
    self.assertEqual(got, want)

  def test_agrees_with_sorting(self):
    random = np.random.default_rng(0)
    logits = random.normal(size=(200, 20)).astype(np.float32)
    labels = random.integers(0, 20, 200)
    for k in (1, 5):
      want = [label in np.argsort(-row)[:k] for row, label in zip(logits, labels, strict=True)]
      np.testing.assert_array_equal(metrics.in_top_k(logits, labels, k), want)

  @parameterized.parameters(
    # logits, label, k, right
    ([1.0, 1.0, 0.0], 0, 1, False), ([1.0, 1.0, 0.0], 1, 1, False), ([1.0, 1.0, 0.0], 0, 2, True),
    ([0.0] * 10, 0, 1, False), ([0.0] * 10, 0, 5, False), ([0.0] * 10, 9, 5, False),
    ([INF, INF, 0.0], 0, 1, False), ([-INF, -INF, 0.0], 2, 1, True),
  )  # fmt: skip
  def test_tie_counts_against_the_example(self, logits, label, k, right):
    self.assertEqual(bool(metrics.in_top_k(jnp.array([logits]), jnp.array([label]), k)[0]), right)

  @parameterized.parameters(
    ([NAN, 1.0, 0.0], 1, 1, False), ([NAN, 1.0, 0.0], 1, 2, True), ([NAN, 1.0, 0.0], 0, 1, False),
    ([NAN] * 10, 3, 1, False), ([NAN] * 10, 3, 5, False), ([1.0, 0.0, NAN], 0, 1, False),
  )  # fmt: skip
  def test_not_a_number_counts_against_the_example(self, logits, label, k, right):
    self.assertEqual(bool(metrics.in_top_k(jnp.array([logits]), jnp.array([label]), k)[0]), right)


class BatchSumsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    random = np.random.default_rng(0)
    self.logits = random.normal(0, 3, (40, 10)).astype(np.float32)
    self.labels = random.integers(0, 10, 40)

  def want(self, rows):
    logits, labels = self.logits[rows], self.labels[rows]
    rank = (logits > np.take_along_axis(logits, labels[:, None], 1)).sum(axis=1)
    return {
      'loss': numpy_cross_entropy(logits, labels).sum(),
      'correct': (rank < 1).sum(),
      'correct_top5': (rank < 5).sum(),
      'count': len(labels),
    }

  def assert_sums(self, got, want):
    self.assertEqual(set(got), set(want))
    for key, value in want.items():
      self.assertEqual(got[key].dtype, jnp.float32)
      np.testing.assert_allclose(got[key], value, rtol=1e-5, err_msg=key)

  def test_all(self):
    want = self.want(slice(None))
    self.assertBetween(want['correct'], 1, want['correct_top5'] - 1)
    self.assert_sums(metrics.batch_sums(self.logits, self.labels, np.ones(40)), want)

  @parameterized.parameters(0.0, NAN, INF, -INF)
  def test_padding_does_not_count_whatever_its_logits(self, value):
    logits = self.logits.copy()
    logits[13:] = value
    mask = (np.arange(40) < 13).astype(np.float32)
    self.assert_sums(metrics.batch_sums(logits, self.labels, mask), self.want(slice(13)))

  def test_padding_would_have_been_right(self):
    logits = np.eye(10, dtype=np.float32)
    sums = metrics.batch_sums(logits, np.arange(10), np.zeros(10, bool))
    self.assertEqual({key: float(value) for key, value in sums.items()}, dict.fromkeys(sums, 0.0))

  def test_loss_that_is_not_a_number_shows(self):
    logits = self.logits.copy()
    logits[7] = NAN
    sums = metrics.batch_sums(logits, self.labels, np.ones(40))
    self.assertTrue(np.isnan(sums['loss']))
    self.assertEqual(sums['count'], 40)

  def test_batches_add_up_to_the_whole(self):
    total = None
    for start in range(0, 40, 8):
      rows = slice(start, start + 8)
      part = metrics.batch_sums(self.logits[rows], self.labels[rows], np.ones(8))
      total = part if total is None else jax.tree.map(jnp.add, total, part)
    self.assert_sums(total, self.want(slice(None)))


class SummarizeTest(absltest.TestCase):
  def test_divides_once(self):
    sums = {'loss': 6.0, 'correct': 3.0, 'correct_top5': 7.0, 'count': 8.0}
    want = {'loss': 0.75, 'error': 0.625, 'error_top5': 0.125}
    self.assertEqual(metrics.summarize(sums), want)

  def test_nothing_counted(self):
    with self.assertRaisesRegex(ValueError, 'no example was counted'):
      metrics.summarize({'loss': 0.0, 'correct': 0.0, 'correct_top5': 0.0, 'count': 0.0})


if __name__ == '__main__':
  absltest.main()
