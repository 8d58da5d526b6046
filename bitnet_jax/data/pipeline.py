"""Opens the pipeline of a split to the devices: resident in their memory, or streamed from disk.

Both kinds have one interface, `Pipeline`, so augmentation, network and loss do not depend on which
one brought the images.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import jax
import ml_collections
import numpy as np

from bitnet_jax import errors
from bitnet_jax.data import splits, types
from bitnet_jax.data.batches import order, resident, stream
from bitnet_jax.data.batches.resident_pipeline import ResidentPipeline
from bitnet_jax.data.batches.stream_pipeline import StreamPipeline
from bitnet_jax.data.datasets.sources import Source
from bitnet_jax.data.images import augment
from bitnet_jax.data.images.crop import CenterCrop, Crop, FiveCrop, RandomResizedCrop


class Pipeline(Protocol):
  """Brings the batches of a split to the devices.

  Attributes:
    num_examples: examples of the split.
    num_batches: batches of an epoch: whole ones in training, and the padded last in evaluation.
    class_names: names in the order of the labels.
    image_shape: (height, width, channels).
    fingerprint: SHA-256 of the data, as in `sources.Source`; final after `load`.
    shapes: shapes of what `inputs` returns, on each device; final before anything is read.
    steps_share_inputs: whether all steps of an epoch can take their batches from one `inputs`.
  """

  num_examples: int
  num_batches: int
  class_names: tuple[str, ...]
  image_shape: tuple[int, int, int]
  fingerprint: str
  shapes: types.Tree
  steps_share_inputs: bool

  @staticmethod
  def fetch_batch(inputs: types.Tree, step_in_epoch: jax.Array) -> types.Batch:
    """Takes a step's batch from `inputs`, within the compiled step, as `types.FetchBatch`."""

  def load(self) -> None:
    """Reads what the first batch needs; raises DataError where the split cannot be read."""

  def inputs(self, number: int) -> types.Tree:
    """Returns the arrays from which `fetch_batch` takes batch `number`, counted over all epochs.

    Numbers rise from call to call, in a stream by one.

    Raises:
      stream.Stopped: the run was asked to stop before the batch arrived.
    """

  def close(self) -> None:
    """Ends the processes and threads that read ahead."""


def is_resident(config: ml_collections.ConfigDict) -> bool:
  """Returns whether the training split lies on the devices, rather than being streamed."""
  return config.data.pipeline == 'resident'


def open_training(
  config: ml_collections.ConfigDict, source: Source, stop: Callable[[], bool] = lambda: False
) -> Pipeline:
  """Opens the pipeline of a split to train on, which drops the last partial batch of an epoch.

  Args:
    config: validated.
    source: the split, from `splits.open_split`.
    stop: asked during a wait for a batch of a stream whether to give up.
  """
  batch_size, num_examples = config.global_batch_size, len(source)
  shape = splits.image_shape(config, source)
  if is_resident(config):

    def epoch_batches(epoch: int) -> np.ndarray:
      permutation = order.epoch_order(config.seed, epoch, num_examples)
      return resident.training_order(permutation, batch_size, jax.device_count())

    return ResidentPipeline(source, shape, batch_size, num_examples // batch_size, epoch_batches)
  first, count = _share_of_process(batch_size)
  skip = config.data.on_error == 'skip'
  crop = _training_crop(config, shape[0])
  batches = stream.TrainingBatches(source, config.seed, batch_size, first, count, crop, skip=skip)
  return StreamPipeline(config, source, shape, batches, num_examples // batch_size, stop)


def open_evaluation(
  config: ml_collections.ConfigDict,
  source: Source,
  *,
  crops: int = 1,
  stop: Callable[[], bool] = lambda: False,
) -> Pipeline:
  """Opens the pipeline of a split to evaluate: each example once, the last batch padded.

  Images that are resized before the crop, or cropped ten times, are streamed.

  Args:
    config: validated.
    source: the split, from `splits.open_split`.
    crops: 1, or 10 for center and corners of the image resized to `eval.resize` and their mirror
      images, which `augment.evaluation_views` makes.
    stop: as for `open_training`.

  Raises:
    ConfigError: ten crops do not fit the resized image.
  """
  batch_size = config.eval.batch_size
  shape = splits.image_shape(config, source)
  if is_resident(config) and crops == 1 and not config.eval.resize:
    batches = resident.evaluation_order(len(source), batch_size, jax.device_count())
    return ResidentPipeline(source, shape, batch_size, batches.shape[1], lambda epoch: batches)
  first, count = _share_of_process(batch_size)
  skip = config.data.on_error == 'skip'
  crop = evaluation_crop(config, shape[0], crops)
  all_batches = stream.EvaluationBatches(source, batch_size, first, count, crop, skip=skip)
  return StreamPipeline(config, source, shape, all_batches, len(all_batches), stop)


def evaluation_crop(config: ml_collections.ConfigDict, size: int, crops: int = 1) -> Crop:
  """Returns the crop of an evaluation; raises ConfigError where ten do not fit.

  Args:
    config: validated.
    size: side of the network's input, in pixels.
    crops: 1 or 10.
  """
  resize, antialias = config.eval.resize, config.data.antialias
  if crops == 1:
    return CenterCrop(size, antialias, resize)
  if resize <= size:
    problem = f'ten crops of {size} pixels need a larger image'
    remedy = f'give --resize={max(size + 1, size * 8 // 7)}'
    raise errors.ConfigError('resize', resize, problem, remedy)
  return FiveCrop(size, antialias, resize)


def make_augment(config: ml_collections.ConfigDict) -> types.AugmentBatch:
  """Returns the training augmentation of a configuration, with the run's seed bound in."""
  transform = augment.make_train_augment(
    mean=config.data.mean, std=config.data.std, **config.augment
  )

  def augment_batch(images: jax.Array, step: jax.Array, positions: jax.Array) -> jax.Array:
    keys = augment.example_keys(jax.random.key(config.seed), step, positions)
    return transform(images, keys)

  return augment_batch


def _training_crop(config: ml_collections.ConfigDict, size: int) -> Crop:
  data = config.data
  if data.train_crop == 'fit':
    return CenterCrop(size, data.antialias)
  return RandomResizedCrop(size, data.antialias, tuple(data.crop_area), tuple(data.crop_aspect))


def _share_of_process(global_batch_size: int) -> tuple[int, int]:
  """Returns the first position and the number of this process's examples in a batch."""
  count = global_batch_size // jax.process_count()
  return jax.process_index() * count, count
