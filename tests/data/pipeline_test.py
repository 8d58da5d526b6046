"""Both ways of the data meet: the same batches, and what a run may skip."""

import dataclasses
import io
import tempfile
from unittest import mock

import jax
import numpy as np
from absl.testing import absltest, parameterized
from PIL import Image

from bitnet_jax import errors
from bitnet_jax.config import validation
from bitnet_jax.data import pipeline, splits
from bitnet_jax.data.datasets import prepared, sources
from bitnet_jax.distributed import devices
from tests.helpers import fake_run


@dataclasses.dataclass(frozen=True)
class Source:
  """Solid images whose labels are their indices; some cannot be read."""

  broken: tuple[int, ...]
  name: str = 'memory'
  split: str = 'train'
  class_names: tuple[str, ...] = tuple(map(str, range(20)))
  channels: int = 1
  image_size: int = 8
  fingerprint: str = 'f'
  hashed: bool = True

  def __len__(self):
    return 20

  def __getitem__(self, index):
    file = io.BytesIO()
    Image.new('L', (8, 8), index).save(file, 'PNG')
    return sources.Example(
      f'k{index}', file.getvalue()[: 45 if index in self.broken else None], index
    )

  def __getitems__(self, indices):
    return [self[int(index)] for index in indices]


def fetch(data, number):
  """The batch as the step sees it, over all devices in order."""
  inputs = data.inputs(number)
  parts = [jax.tree.map(np.asarray, inputs)] * jax.local_device_count()
  per_device = [
    jax.device_get(
      data.fetch_batch({name: array[i] for name, array in part.items()}, number % data.num_batches)
    )
    for i, part in enumerate(parts)
  ]
  return {name: np.concatenate([batch[name] for batch in per_device]) for name in per_device[0]}


class BothWaysTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.data_dir = cls.enterClassContext(tempfile.TemporaryDirectory())
    prepared.prepare('digits', cls.data_dir)

  def config(self, pipeline):
    return fake_run.make_config(
      self.data_dir,
      **{'data.pipeline': pipeline, 'data.workers': 0, 'data.train_split': 'train[:200]'},
    )

  def assert_same_batches(self, resident, stream, numbers):
    self.assertEqual(resident.num_batches, stream.num_batches)
    self.assertEqual(resident.image_shape, stream.image_shape)
    self.assertEqual(resident.class_names, stream.class_names)
    for number in numbers:
      want, got = fetch(resident, number), fetch(stream, number)
      self.assertEqual(set(got), set(want))
      np.testing.assert_array_equal(got['mask'], want['mask'])
      kept = want['mask'] == 1  # Padding is another black image.
      for name in want:
        np.testing.assert_array_equal(got[name][kept], want[name][kept], name)
        self.assertEqual(got[name].dtype, want[name].dtype)
    stream.close()

  def assert_same_shapes(self, source, *both):
    """What is known before anything is read is what comes."""
    for way, data in zip(('resident', 'stream'), both, strict=True):
      config = self.config(way)
      want = devices.shapes(data.shapes)
      got = data.inputs(1)
      self.assertEqual(
        {name: (leaf.shape, leaf.dtype, leaf.sharding) for name, leaf in got.items()},
        {name: (leaf.shape, leaf.dtype, leaf.sharding) for name, leaf in want.items()},
      )
      self.assertEqual(data.steps_share_inputs, pipeline.is_resident(config))

  def test_training(self):
    both = []
    for way in ('resident', 'stream'):
      config = self.config(way)
      source = splits.open_split(config, config.data.train_split)
      both.append(pipeline.open_training(config, source))
      both[-1].load()
    self.assertEqual(both[0].num_batches, 3)
    self.assert_same_shapes(source, *both)
    self.assert_same_batches(*both, range(2, 8))  # From the middle of the first epoch on.

  def test_evaluation(self):
    both = []
    for way in ('resident', 'stream'):
      config = self.config(way)
      both.append(pipeline.open_evaluation(config, splits.open_split(config, 'test[:90]')))
      both[-1].load()
    self.assertEqual(both[0].num_batches, 3)
    self.assert_same_batches(*both, range(3))


class SkipTest(parameterized.TestCase):
  def open(self, broken, **overrides):
    made = fake_run.make_config(
      '',
      **{
        'data.pipeline': 'stream',
        'data.workers': 0,
        'data.image_size': 8,
        'global_batch_size': 8,
        **overrides,
      },
    )
    return pipeline.open_training(made, Source(broken))

  def read(self, data, number=5):
    self.addCleanup(data.close)
    return [fetch(data, index) for index in range(number)]

  def test_raises_by_default(self):
    with self.assertRaisesRegex(errors.DataError, 'image=k3: damaged'):
      self.read(self.open((3,)))

  def test_skips_and_goes_on(self):
    with mock.patch('builtins.print') as printed:
      batches = self.read(self.open((3, 7), **{'data.on_error': 'skip', 'data.max_skipped': 0.1}))
    labels = np.concatenate([batch['label'] for batch in batches])
    self.assertNotIn(3, labels)
    self.assertTrue(all(batch['mask'].all() for batch in batches))
    said = sorted(call.args[0] for call in printed.call_args_list)
    # Each once, however often its turn came.
    self.assertEqual(said, ['skipped k3, which cannot be read', 'skipped k7, which cannot be read'])

  @parameterized.parameters((1e-4, 1), (0.1, 2), (0.15, 3))
  def test_no_more_than_allowed(self, share, allowed):
    options = {'data.on_error': 'skip', 'data.max_skipped': share}
    self.read(self.open(tuple(range(allowed)), **options))
    with self.assertRaisesRegex(
      errors.DataError, rf'image=k\d: {allowed + 1} of 20 cannot be read.*data.max_skipped={share}'
    ):
      self.read(self.open(tuple(range(allowed + 1)), **options))


class ValidationTest(parameterized.TestCase):
  @parameterized.parameters(
    (
      {'data.train_crop': 'random_area'},
      'config.data.train_crop=random_area: not for the resident',
    ),
    ({'eval.resize': 10}, 'config.eval.resize=10: not for the resident way; set config.data.pipel'),
    ({'data.name': 'imagenet2012', 'data.image_size': 8}, 'config.data.name=imagenet2012: not for'),
    ({'data.on_error': 'skip'}, 'config.data.on_error=skip: not for the resident way; set config'),
    ({'data.name': 'imagenet2012'}, 'config.data.image_size=0: images of imagenet2012 vary'),
    ({'eval.resize': 7, 'data.image_size': 8}, 'config.eval.resize=7: less than data.image_size=8'),
    ({'data.crop_area': (0.5, 0.1)}, r'config.data.crop_area=\(0.5, 0.1\): not a range'),
    ({'data.crop_aspect': (1.0, 1.0, 1.0)}, 'config.data.crop_aspect=.*: not a range'),
    ({'augment.jitter': 0.4}, 'config.augment.jitter=0.4: gray images have no color'),
    ({'augment.lighting': 0.1}, 'config.augment.lighting=0.1: gray images have no color'),
  )
  def test_refuses(self, overrides, line):
    made = fake_run.make_config('', **overrides)
    with self.assertRaisesRegex(errors.ConfigError, line):
      validation.validate(made)


if __name__ == '__main__':
  absltest.main()
