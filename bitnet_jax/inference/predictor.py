"""A network in use: from images to logits, by the fastest way there is.

On a CPU the whole network is one call of oneDNN (`onednn.Program`), where that knows all that the
network does. Everywhere else it is a compiled program of XLA, with batch norm folded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from bitnet_jax import onednn
from bitnet_jax.inference import fold, tracing
from bitnet_jax.onednn import ops

Tree = Any
Images = np.ndarray | jax.Array
Predictor = Callable[[Any], np.ndarray]  # Of `Images`.


def make_predictor(
  model: nn.Module, variables: Tree, image_shape: tuple[int, int, int], batch_size: int
) -> Predictor:
  """Makes a function of images out of a network and its weights, which it keeps.

  Args:
    model: of `registry.create_model`, or of `assemble.make_model`.
    variables: 'params' and 'batch_stats'.
    image_shape: `[height, width, channels]`.
    batch_size: images of a call, at most; XLA compiles for so many.

  Returns:
    A function that any thread may call, from images, `[batch, height, width, channels]`, float32,
    normalised, to logits, `[batch, num_classes]`, float32.
  """
  conv = model.conv.keywords
  if conv['kernels'] != 'xla' and ops.runs_conv(conv['dtype']):
    try:
      network = tracing.trace(model, variables, image_shape)
      return onednn.Program(network, ops.TYPES[jnp.dtype(conv['dtype'])])
    except (onednn.Unsupported, RuntimeError):
      pass  # A network that somebody wrote anew, or a kernel that is not to be had.
  return _compiled(model, variables, batch_size)


def _compiled(model: nn.Module, variables: Tree, batch_size: int) -> Predictor:
  folded, variables = fold.fold(model, variables)
  variables = jax.device_put(variables)
  apply = jax.jit(lambda variables, images: folded.apply(variables, images, train=False))

  def predict(images: Images) -> np.ndarray:
    missing = batch_size - len(images)
    if missing:
      images = np.pad(images, ((0, missing), (0, 0), (0, 0), (0, 0)))
    return np.asarray(apply(variables, images))[: batch_size - missing]

  return predict
