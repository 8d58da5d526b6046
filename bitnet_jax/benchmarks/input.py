"""Measures the speed of the input: decoding and cropping, the stream's workers, resident images.

Rates are images for each second of a core's time, of all threads and processes together, so that
other programs on the machine matter little; the stream's rates are given by the clock too. The ways
of decoding take turns within one run.
"""

from __future__ import annotations

import dataclasses
import io
import multiprocessing
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from bitnet_jax import errors
from bitnet_jax.data.batches import resident, stream
from bitnet_jax.data.datasets import archives
from bitnet_jax.data.datasets.sources import Example
from bitnet_jax.data.images import augment, crop, decode
from bitnet_jax.runtime import host

SIZE = 224
_BATCH = 50
_ROUNDS = 5
_STREAM_ROUNDS = 3
_TICKS = os.sysconf('SC_CLK_TCK')


@dataclasses.dataclass
class MemorySource:
  """Holds encoded images in memory, as a `sources.Source`."""

  encoded: tuple[bytes, ...]
  name: str = 'memory'
  split: str = 'train'
  class_names: tuple[str, ...] = ('any',)
  channels: int = 3
  image_size: int = 0
  fingerprint: str = ''
  hashed: bool = True

  def __len__(self) -> int:
    return len(self.encoded)

  def __getitem__(self, index: int) -> Example:
    return Example(str(index), self.encoded[index], 0)

  def __getitems__(self, indices: Sequence[int]) -> list[Example]:
    return [self[int(index)] for index in indices]


def load_images(path: str) -> tuple[bytes, ...]:
  """Returns the JPEG files of a folder or a tar archive, or images of noise for ''."""
  if not path:
    return tuple(_noise(seed) for seed in range(100))
  if os.path.isfile(path):
    return tuple(body for _, body in archives.walk(path) if body[:2] == b'\xff\xd8')
  files = sorted(p for p in pathlib.Path(path).rglob('*') if p.suffix.lower() in ('.jpg', '.jpeg'))
  return tuple(file.read_bytes() for file in files)


def _noise(seed: int) -> bytes:
  """Returns a JPEG of 500 x 375 pixels and about 110 KB, which is usual in ILSVRC12."""
  rng = np.random.default_rng(seed)
  coarse = rng.integers(0, 256, (24, 32, 3), np.uint8)
  pixels = cv2.resize(coarse, (500, 375), interpolation=cv2.INTER_CUBIC).astype(float)
  file = io.BytesIO()
  noisy = np.clip(pixels + rng.normal(0, 12, pixels.shape), 0, 255).astype(np.uint8)
  Image.fromarray(noisy).save(file, 'JPEG', quality=90)
  return file.getvalue()


def _pillow(encoded: bytes, box: tuple[int, int, int, int]) -> np.ndarray:
  top, left, height, width = box
  with Image.open(io.BytesIO(encoded)) as image:
    part = (left, top, left + width, top + height)
    return np.asarray(image.convert('RGB').resize((SIZE, SIZE), Image.Resampling.BICUBIC, box=part))


def _torchvision(encoded: bytes, box: tuple[int, int, int, int]) -> np.ndarray:
  """Crops, resizes bilinearly with antialias and converts to float32, as torchvision does."""
  top, left, height, width = box
  with Image.open(io.BytesIO(encoded)) as image:
    part = image.convert('RGB').crop((left, top, left + width, top + height))
  pixels = np.asarray(part.resize((SIZE, SIZE), Image.Resampling.BILINEAR))
  return np.ascontiguousarray(pixels.transpose(2, 0, 1)).astype(np.float32) / np.float32(255)


def _opencv(encoded: bytes, box: tuple[int, int, int, int]) -> np.ndarray:
  top, left, height, width = box
  pixels = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB)
  assert pixels is not None, 'not an image'
  part = pixels[top : top + height, left : left + width]
  return cv2.resize(part, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)


def decoding(images: Sequence[bytes]) -> dict[str, float]:
  """Returns images for each second of a core, by way of decoding: the median over rounds."""
  cut = crop.RandomResizedCrop(SIZE)
  filtered = dataclasses.replace(cut, antialias=True)
  bits = [crop.example_random_bits(0, 0, i) for i in range(len(images))]
  boxes = []
  for encoded, draw in zip(images, bits, strict=True):
    image = decode.EncodedImage(encoded, 3, '')
    box = crop.random_area_box(image.height, image.width, draw, area=cut.area, aspect=cut.aspect)
    boxes.append(box or (0, 0, image.height, image.width))
  ways: dict[str, Callable[[int], np.ndarray]] = {
    'Pillow': lambda i: _pillow(images[i], boxes[i]),
    'torchvision style': lambda i: _torchvision(images[i], boxes[i]),
    'OpenCV, full decode': lambda i: _opencv(images[i], boxes[i]),
    'ours': lambda i: cut(images[i], 3, '', bits[i]),
    'ours, antialias': lambda i: filtered(images[i], 3, '', bits[i]),
  }
  rates: dict[str, list[float]] = {name: [] for name in ways}
  for _ in range(_ROUNDS):
    for name, way in ways.items():
      start = time.process_time()
      for index in range(len(images)):
        way(index)
      rates[name].append(len(images) / (time.process_time() - start))
  return {name: float(np.median(values)) for name, values in rates.items()}


@dataclasses.dataclass(frozen=True)
class ReadyBatches:
  """Gives the same batch at every step, so that only handing the batch over takes time."""

  batch: stream.Batch

  def __call__(self, number: int) -> stream.Batch:
    """Returns the batch."""
    return self.batch


def training_batches(images: Sequence[bytes]) -> stream.TrainingBatches:
  """Returns batches of random-area crops."""
  cut = crop.RandomResizedCrop(SIZE)
  return stream.TrainingBatches(MemorySource(tuple(images)), 0, _BATCH, 0, _BATCH, cut)


def streaming(
  batches: Callable[[int], stream.Batch], workers: int, num_batches: int
) -> tuple[float, float]:
  """Returns images/second of running workers, by the clock and for each second of a core."""
  reader = stream.iterate(batches, 0, workers=workers, timeout_seconds=120)
  try:
    for _ in range(2 * workers + 3):  # Workers read ahead while they start.
      next(reader)
    start, cpu = time.perf_counter(), _cpu_seconds()
    for _ in range(num_batches):
      next(reader)
    count = num_batches * _BATCH
    return count / (time.perf_counter() - start), count / (_cpu_seconds() - cpu)
  finally:
    reader.close()


def scaling(batches: Callable[[int], stream.Batch]) -> dict[int, tuple[float, float]]:
  """Returns the rates of `streaming` with 1, 2 and one worker a core, by number of workers.

  By the clock the best of several rounds counts, because other programs may use the machine too; of
  a core the median counts.
  """
  numbers = sorted({1, 2, host.available_cores()})
  rounds = [{n: streaming(batches, n, 20 * n) for n in numbers} for _ in range(_STREAM_ROUNDS)]
  clocks, each = ({n: [one[n][i] for one in rounds] for n in numbers} for i in (0, 1))
  return {n: (max(clocks[n]), float(np.median(each[n]))) for n in numbers}


def _cpu_seconds() -> float:
  """Returns the processor time of this process and its children, in seconds; needs Linux."""
  total = time.process_time()
  for process in multiprocessing.active_children():
    fields = pathlib.Path(f'/proc/{process.pid}/stat').read_text().rpartition(')')[2].split()
    total += (int(fields[11]) + int(fields[12])) / _TICKS
  return total


def augmenting(batch_size: int = 128, num_batches: int = 200) -> float:
  """Returns CIFAR images, gathered and augmented, for each second of a core."""
  rng = np.random.default_rng(0)
  inputs = {
    'image': jnp.asarray(rng.integers(0, 256, (50000, 32, 32, 3), np.uint8)),
    'label': jnp.zeros(50000, jnp.int32),
    'order': jnp.asarray(rng.permutation(50000)[: 390 * 128].reshape(390, 128), jnp.int32),
  }
  transform = augment.make_train_augment(
    mean=(125.3, 123.0, 113.9), std=(63.0, 62.1, 66.7), pad=4, pad_mode='zeros', flip=True
  )

  @jax.jit
  def step(number: jax.Array) -> jax.Array:
    batch = resident.fetch_batch(inputs, number)
    keys = augment.example_keys(jax.random.key(0), number, jnp.arange(batch_size))
    return transform(batch['image'], keys)

  step(0).block_until_ready()
  start = time.process_time()
  for number in range(num_batches):
    step(number).block_until_ready()
  return batch_size * num_batches / (time.process_time() - start)


def run(images: str) -> dict[str, Any]:
  """Measures the input.

  Args:
    images: path of a folder or a tar archive of JPEG files, or '' for images of noise.

  Returns:
    A JSON object, in images/second: 'decoding' of each way on a core; 'stream' by number of
    workers, 'clock' and 'core'; 'handing_over' and 'resident' on a core.

  Raises:
    ConfigError: the images do not fill a batch.
  """
  encoded = load_images(images)
  if len(encoded) < _BATCH:
    problem = f'has {len(encoded)} JPEG files'
    raise errors.ConfigError('images', images, problem, f'name {_BATCH} or more')
  batches = training_batches(encoded)
  return {
    'images': f'{len(encoded)} {"photographs" if images else "images made of noise"}',
    'decoding': decoding(encoded),
    'stream': {n: {'clock': clock, 'core': core} for n, (clock, core) in scaling(batches).items()},
    'handing_over': streaming(ReadyBatches(batches(0)), 1, 100)[1],
    'resident': augmenting(),
  }
