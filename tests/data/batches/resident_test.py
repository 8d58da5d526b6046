"""Every example once, in one global order, whatever the batch size and the number of devices."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bitnet_jax.data.batches import resident

fetch_batch = jax.jit(resident.fetch_batch)


def make_set(examples):
  """Images that bear their own index in two pixels, and labels that follow from it."""
  images = np.zeros((examples, 2, 1, 1), np.uint8)
  images[:, 0, 0, 0], images[:, 1, 0, 0] = np.divmod(np.arange(examples), 256)
  return {'image': jnp.asarray(images), 'label': jnp.arange(examples, dtype=jnp.int32) * 7 % 10}


def fetch_all(data, order):
  """Runs all steps on all devices: index, label and mask, each `[steps, devices, batch]`."""
  rows = []
  for step in range(order.shape[1]):
    batches = [fetch_batch({**data, 'order': part}, step) for part in order]
    rows.append({key: np.stack([batch[key] for batch in batches]) for key in batches[0]})
  joined = {key: np.stack([row[key] for row in rows]) for key in rows[0]}
  image = joined['image'].astype(int)
  return image[..., 0, 0, 0] * 256 + image[..., 1, 0, 0], joined['label'], joined['mask']


class TrainingOrderTest(parameterized.TestCase):
  @parameterized.product(batch=(8, 16, 48), devices=(1, 2, 4, 8), examples=(48, 53, 95))
  def test_each_step_takes_the_next_batch(self, batch, devices, examples):
    order = np.random.default_rng(0).permutation(examples)
    cut = resident.training_order(order, batch, devices)
    steps = examples // batch
    self.assertEqual(cut.shape, (devices, steps, batch // devices))
    self.assertEqual(cut.dtype, np.int32)
    for step in range(steps):
      want = order[step * batch : (step + 1) * batch]
      np.testing.assert_array_equal(np.concatenate(cut[:, step]), want)
      for device, part in enumerate(np.split(want, devices)):
        np.testing.assert_array_equal(cut[device, step], part)

  @parameterized.parameters(1, 2, 4, 8)
  def test_batches_are_the_same_on_any_devices(self, devices):
    order = np.random.default_rng(1).permutation(300)
    index, label, mask = fetch_all(make_set(300), resident.training_order(order, 32, devices))
    np.testing.assert_array_equal(index.reshape(-1), order[: 9 * 32])
    np.testing.assert_array_equal(label, index * 7 % 10)
    np.testing.assert_array_equal(mask, 1)

  @parameterized.parameters((31, 32), (0, 1))
  def test_too_few_examples(self, examples, batch):
    with self.assertRaisesRegex(ValueError, f'{examples} examples do not fill a batch of {batch}'):
      resident.training_order(np.arange(examples), batch, 1)

  def test_batch_that_does_not_divide(self):
    with self.assertRaisesRegex(ValueError, 'a batch of 12 does not divide by 8 devices'):
      resident.training_order(np.arange(48), 12, 8)
    with self.assertRaisesRegex(ValueError, 'a batch of 12 does not divide by 8 devices'):
      resident.evaluation_order(47, 12, 8)


class EvaluationOrderTest(parameterized.TestCase):
  @parameterized.product(examples=(1, 7, 16, 17, 300), batch=(8, 16), devices=(1, 2, 4, 8))
  def test_every_example_counts_once(self, examples, batch, devices):
    order = resident.evaluation_order(examples, batch, devices)
    steps = -(-examples // batch)
    self.assertEqual(order.shape, (devices, steps, batch // devices))
    in_order = order.transpose(1, 0, 2).reshape(-1)
    np.testing.assert_array_equal(in_order[:examples], np.arange(examples))
    np.testing.assert_array_equal(in_order[examples:], resident.PADDING)

  @parameterized.product(examples=(1, 19, 32), devices=(1, 4))
  def test_mask_marks_the_padding_of_the_last_batch(self, examples, devices):
    order = resident.evaluation_order(examples, 16, devices)
    index, label, mask = (x.reshape(-1) for x in fetch_all(make_set(examples), order))
    self.assertEqual(mask.dtype, np.float32)
    np.testing.assert_array_equal(index[mask == 1], np.arange(examples))
    np.testing.assert_array_equal(label[mask == 1], np.arange(examples) * 7 % 10)
    np.testing.assert_array_equal(mask, np.arange(len(mask)) < examples)

  def test_first_example_is_no_padding(self):
    """Padding reads the first example's pixels; the mask alone tells them apart."""
    order = np.array([[0, resident.PADDING]], np.int32)
    batch = fetch_batch({**make_set(3), 'order': order}, 0)
    np.testing.assert_array_equal(batch['mask'], [1, 0])
    np.testing.assert_array_equal(batch['image'][0], batch['image'][1])


if __name__ == '__main__':
  absltest.main()
