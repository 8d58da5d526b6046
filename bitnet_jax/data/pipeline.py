"""From a configuration to batches on the devices, by the resident way or by the stream.

Both ways meet here: a step is given `feed.inputs_of(step)`, out of which `feed.fetch_batch` makes
uint8 images with labels and a mask, and what follows does not know which way they came.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
import numpy as np

from bitnet_jax import errors
from bitnet_jax.data import splits, types
from bitnet_jax.data.batches import order, resident, stream
from bitnet_jax.data.batches.arrays import Arrays
from bitnet_jax.data.datasets.sources import Source
from bitnet_jax.data.images import augment
from bitnet_jax.data.images.crop import Crop
from bitnet_jax.distributed import devices
from bitnet_jax.runtime import host

Tree = Any


@dataclasses.dataclass(frozen=True)
class Pipeline:
  """A split on its way to the devices.

  Attributes:
    num_examples: of the split.
    num_batches: of the split; in training whole ones, in evaluation with the padded last one.
    class_names: in the order of the labels.
    image_shape: (height, width, channels).
    fingerprint: of the source, see `sources.Source`.
    fetch_batch: see `steps.FetchBatch`.
    inputs_of: what the batch with this number, counted from 0, is fetched from, and those after
      it in its epoch if the split is resident. Numbers rise from call to call, of a stream by one.
    close: ends what reads ahead.
  """

  num_examples: int
  num_batches: int
  class_names: tuple[str, ...]
  image_shape: tuple[int, ...]
  fingerprint: str
  fetch_batch: types.FetchBatch
  inputs_of: Callable[[int], Tree]
  close: Callable[[], None] = lambda: None


def open_training(
  config: ml_collections.ConfigDict, source: Source, stop: Callable[[], bool] = lambda: False
) -> Pipeline:
  """A split to train on.

  Args:
    config: validated.
    source: the split, which `assemble.open_split` opened.
    stop: asked while a batch of the stream is waited for; `inputs_of` then raises
      `stream.Stopped`.

  Raises:
    UserError: data or configuration are at fault.
  """
  batch = config.global_batch_size
  if config.data.pipeline == 'resident':
    arrays = splits.load_split(config, source)
    num_batches = len(arrays.label) // batch
    return _resident(arrays, num_batches, _training_inputs(config, arrays, num_batches))
  crop = Crop(
    config.data.train_crop,
    config.data.image_size or source.image_size,
    antialias=config.data.antialias,
    area=tuple(config.data.crop_area),
    aspect=tuple(config.data.crop_aspect),
  )
  batches = stream.TrainingBatches(
    source, config.seed, batch, *_part(batch), crop, skip=config.data.on_error == 'skip'
  )
  return _stream(config, source, batches, len(source) // batch, crop, stop)


def training_shapes(config: ml_collections.ConfigDict, source: Source) -> Tree:
  """Of what `inputs_of` hands each device in training; known before anything is read."""
  size = config.data.image_size or source.image_size
  batch = config.global_batch_size // jax.device_count()
  resident_way = config.data.pipeline == 'resident'
  count = len(source) if resident_way else batch
  shapes = {
    'image': jax.ShapeDtypeStruct((count, size, size, source.channels), np.uint8),
    'label': jax.ShapeDtypeStruct((count,), np.int32),
  }
  if resident_way:
    steps_per_epoch = len(source) // config.global_batch_size
    return {**shapes, 'order': jax.ShapeDtypeStruct((steps_per_epoch, batch), np.int32)}
  return {**shapes, 'mask': jax.ShapeDtypeStruct((count,), np.float32)}


def fetch_training_batch(config: ml_collections.ConfigDict) -> types.FetchBatch:
  """The `fetch_batch` of a training feed."""
  return resident.fetch_batch if config.data.pipeline == 'resident' else stream.fetch_batch


def open_evaluation(
  config: ml_collections.ConfigDict,
  source: Source,
  *,
  crops: int = 1,
  stop: Callable[[], bool] = lambda: False,
) -> Pipeline:
  """A split to evaluate.

  Args:
    config: validated.
    source: the split, which `assemble.open_split` opened.
    crops: 1, or 10: centre and corners of the image resized to `eval.resize`, and their mirror
      images, which `augment.evaluation_views` makes.
    stop: as of `open_training`.

  Raises:
    UserError: data or configuration are at fault.
  """
  batch = config.eval.batch_size
  if config.data.pipeline == 'resident' and crops == 1 and not config.eval.resize:
    arrays = splits.load_split(config, source)
    orders = resident.evaluation_order(len(arrays.label), batch, jax.device_count())
    inputs = devices.replicate({'image': arrays.image, 'label': arrays.label})
    inputs['order'] = devices.scatter(orders)
    return _resident(arrays, orders.shape[1], lambda number: inputs)
  size, resize = config.data.image_size or source.image_size, config.eval.resize
  if crops > 1 and resize <= size:
    problem = f'ten crops of {size} pixels need a larger image'
    remedy = f'give --resize={max(size + 1, size * 8 // 7)}'
    raise errors.ConfigError('resize', resize, problem, remedy)
  crop = Crop(
    'resize' if resize else 'fit',
    size,
    resize=resize,
    views=5 if crops > 1 else 1,
    antialias=config.data.antialias,
  )
  skip = config.data.on_error == 'skip'
  batches = stream.EvaluationBatches(source, batch, *_part(batch), crop, skip=skip)
  return _stream(config, source, batches, len(batches), crop, stop)


def _part(global_batch_size: int) -> tuple[int, int]:
  """First position and number of this process's examples in a batch."""
  count = global_batch_size // jax.process_count()
  return jax.process_index() * count, count


def _resident(arrays: Arrays, num_batches: int, inputs_of: Callable[[int], Tree]) -> Pipeline:
  return Pipeline(
    num_examples=len(arrays.label),
    num_batches=num_batches,
    class_names=arrays.class_names,
    image_shape=arrays.image.shape[1:],
    fingerprint=arrays.fingerprint,
    fetch_batch=resident.fetch_batch,
    inputs_of=inputs_of,
  )


def _training_inputs(
  config: ml_collections.ConfigDict, arrays: Arrays, steps_per_epoch: int
) -> Callable[[int], Tree]:
  """The order of an epoch goes to the devices at its first step; nothing else is transferred."""
  inputs = devices.replicate({'image': arrays.image, 'label': arrays.label})
  placed = -1

  def inputs_of(number: int) -> Tree:
    nonlocal placed
    epoch = number // steps_per_epoch
    if epoch != placed:
      permutation = order.epoch_order(config.seed, epoch, len(arrays.label))
      batches = resident.training_order(permutation, config.global_batch_size, jax.device_count())
      inputs['order'], placed = devices.scatter(batches), epoch
    return inputs

  return inputs_of


def _stream(
  config: ml_collections.ConfigDict,
  source: Source,
  batches: Callable[[int], stream.Batch],
  num_batches: int,
  crop: Crop,
  stop: Callable[[], bool],
) -> Pipeline:
  reader: stream.Batches | None = None
  check = _skip_counter(source, config.data.max_skipped)

  def inputs_of(number: int) -> Tree:
    nonlocal reader
    if reader is None:  # Workers start when the first batch is known: after a restore.
      reader = stream.iterate(
        batches,
        number,
        workers=min(num_workers(config), max(num_batches, 1)),
        timeout_seconds=config.data.timeout_seconds,
        stop=stop,
      )
    batch = next(reader)
    check(batch.pop('skipped'))
    return devices.place(batch)

  return Pipeline(
    num_examples=len(source),
    num_batches=num_batches,
    class_names=source.class_names,
    image_shape=(crop.size, crop.size, source.channels),
    fingerprint=source.fingerprint,
    fetch_batch=stream.fetch_batch,
    inputs_of=inputs_of,
    close=lambda: reader.close() if reader else None,
  )


def num_workers(config: ml_collections.ConfigDict) -> int:
  """Processes that decode: as configured, or one for each core that this process may use."""
  if config.data.workers >= 0:
    return config.data.workers
  return host.available_cores()


def _skip_counter(source: Source, max_skipped: float) -> Callable[[np.ndarray], None]:
  """A function that counts the examples skipped, each once, and raises where there are too many."""
  seen: set[int] = set()
  allowed = math.ceil(max_skipped * len(source))

  def check(skipped: np.ndarray) -> None:
    for index in skipped[skipped != stream.NONE].tolist():
      if index in seen:
        continue
      seen.add(index)
      print(f'skipped {_key(source, index)}, which cannot be read', flush=True)
      if len(seen) > allowed:
        problem = f'{len(seen)} of {len(source)} cannot be read, the last being this one'
        remedy = f'repair them or raise config.data.max_skipped={max_skipped:g}'
        raise errors.DataError('image', _key(source, index), problem, remedy)

  return check


def _key(source: Source, index: int) -> str:
  try:
    return source[index].key
  except errors.DataError:
    return f'{source.split}[{index}]'


def make_augment(config: ml_collections.ConfigDict) -> Callable[..., jax.Array]:
  """The augmentation of a configuration, a `steps.AugmentBatch` with the run's seed bound in."""
  transform = augment.make_train_augment(
    mean=config.data.mean, std=config.data.std, **config.augment
  )

  def augment_batch(images: jax.Array, step: jax.Array, positions: jax.Array) -> jax.Array:
    keys = augment.example_keys(jax.random.key(config.seed), step, positions)
    return transform(images, keys)

  return augment_batch
