"""Predicts the classes of image files with a saved network."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Sequence

import jax.numpy as jnp
import numpy as np

from bitnet_jax import errors
from bitnet_jax.checkpoints import pretrained
from bitnet_jax.data import pipeline
from bitnet_jax.data.images import augment
from bitnet_jax.data.images.crop import Crop
from bitnet_jax.inference import predictor

_TOP = 5
_BATCH = 32


def predict(
  workdir: str, paths: Sequence[str], *, step: int = 0
) -> Iterator[tuple[str, list[tuple[str, float]]]]:
  """Yields (path, [(class, probability), ...]), the most probable class first.

  Args:
    workdir: of the run.
    paths: of images.
    step: of the checkpoint; 0 for the newest.

  Raises:
    CheckpointError: no such run or checkpoint.
    DataError: an image cannot be read.
  """
  network = pretrained.load(workdir, step)
  mean, std = network.config.data.mean, network.config.data.std
  batch_size = min(_BATCH, len(paths))
  logits = predictor.from_run(network, batch_size)
  cut = pipeline.evaluation_crop(network.config, network.image_shape[0])
  for start in range(0, len(paths), batch_size):
    part = paths[start : start + batch_size]
    images = np.stack([_read(path, cut, len(mean)) for path in part])
    inputs = augment.normalize(jnp.asarray(images), mean, std)
    for path, row in zip(part, _softmax(logits(inputs)), strict=True):
      best = np.argsort(-row, kind='stable')[:_TOP]
      yield path, [(network.class_names[i], float(row[i])) for i in best]


def _softmax(logits: np.ndarray) -> np.ndarray:
  powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
  return powers / powers.sum(axis=-1, keepdims=True)


def _read(path: str, cut: Crop, channels: int) -> np.ndarray:
  try:
    encoded = pathlib.Path(path).read_bytes()
  except OSError as error:
    raise errors.DataError('image', path, str(error.strerror), 'name an image file') from error
  return cut(encoded, channels, path)
