"""Applies a trained network to images, compiled with batch norm folded into its convolutions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import numpy as np

from bitnet_jax.checkpoints.pretrained import Trained
from bitnet_jax.inference import fold
from bitnet_jax.models import build
from bitnet_jax.models.kernels import XLA, Kernels

Tree = Any
Predictor = Callable[[np.ndarray | jax.Array], np.ndarray]


# Fewer images of a call are faster by XLA's kernels: the calls of the others cost more than they
# gain. Measured on two cores with AVX2: images/s of one image 111 against 66, of eight 188, 241.
_FEWEST_FOR_KERNELS = 8


def from_run(run: Trained, batch_size: int) -> Predictor:
  """Makes the predictor of a saved network, with whichever kernels are fastest.

  Args:
    run: from `pretrained.load`.
    batch_size: largest number of images of a call.

  Raises:
    ConfigError: the run's kernels cannot be had here.
  """
  options = run.config.model
  few = options.kernels == 'auto' and batch_size < _FEWEST_FOR_KERNELS
  kernels = XLA if few else build.choose_kernels(options.kernels, options.dtype)
  model = build.make_model(run.config, len(run.class_names), '', XLA)
  return make_predictor(model, run.variables, run.image_shape, batch_size, kernels)


def make_predictor(
  model: nn.Module,
  variables: Tree,
  image_shape: tuple[int, int, int],
  batch_size: int,
  kernels: Kernels = XLA,
) -> Predictor:
  """Makes a function of images out of a network and its weights, which it keeps.

  Args:
    model: of `registry.create_model`, with XLA's kernels.
    variables: 'params' and 'batch_stats'.
    image_shape: (height, width, channels).
    batch_size: largest number of images of a call; fewer are filled up with zeros.
    kernels: what computes convolutions.

  Returns:
    A function that any thread may call, from images, `[batch, height, width, channels]`, float32,
    normalized, to logits, `[batch, num_classes]`, float32.
  """
  folded, weights = fold.fold(model, variables, image_shape, batch_size, kernels)
  weights = jax.device_put(weights)
  apply = jax.jit(folded)

  def predict(images: np.ndarray | jax.Array) -> np.ndarray:
    missing = batch_size - len(images)
    if missing:
      images = np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0)))
    return np.asarray(apply(weights, images))[: batch_size - missing]

  return predict
