"""What a run checks before it compiles or decodes anything: devices, data, length, room."""

from __future__ import annotations

import dataclasses
import math

import flax.linen as nn
import jax
import ml_collections
import optax

from bitnet_jax.checkpoints import workdir
from bitnet_jax.config import validation
from bitnet_jax.data import splits
from bitnet_jax.data.datasets.sources import Source
from bitnet_jax.models import build, initialize
from bitnet_jax.runtime import preemption
from bitnet_jax.training import setup
from bitnet_jax.training.plan import make_plan

_COUNTERS = 64  # Bytes of a state that are neither parameters nor averages nor the optimizer's.


@dataclasses.dataclass(frozen=True)
class Splits:
  """The data of a run, opened and compared with their manifest.

  Attributes:
    train: to train on.
    test: to evaluate.
  """

  train: Source
  test: Source


def check(config: ml_collections.ConfigDict, directory: str | None) -> Splits:
  """Refuses what cannot train, in seconds.

  Args:
    config: validated.
    directory: claimed work directory; None in a process that leaves it to the first.

  Returns:
    The splits, so that nothing is opened and hashed twice.

  Raises:
    ConfigError: batches or batch norm's group do not fit the devices, or the data the network.
    DataError: a split is not there, or differs from its manifest.
    StorageError: there is no room for the checkpoints.
  """
  validation.validate_devices(config, jax.device_count())
  train, test = (
    splits.open_split(config, split, stop=preemption.requested)
    for split in (config.data.train_split, config.data.test_split)
  )
  splits = Splits(train, test)
  if directory is None:
    return splits
  plan = make_plan(config, len(train))
  model = build.make_model(config, len(train.class_names), '')
  optimizer, _ = setup.make_optimizer(config, plan)
  size = config.data.image_size or train.image_size
  keep = config.checkpoint
  workdir.check_space(
    directory,
    state_bytes=state_bytes(model, optimizer, (size, size, train.channels)),
    checkpoints=keep.keep_latest + keep.keep_best,
  )
  return splits


def state_bytes(
  model: nn.Module, optimizer: optax.GradientTransformation, image_shape: tuple[int, ...]
) -> int:
  """Size of a training state, from shapes alone.

  Args:
    model: maps images to logits.
    optimizer: the optax chain.
    image_shape: (height, width, channels).
  """
  variables = initialize.shapes(model, image_shape)
  trees = variables, jax.eval_shape(optimizer.init, variables['params'])
  leaves = jax.tree.leaves(trees)
  return _COUNTERS + sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)
