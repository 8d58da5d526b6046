"""Makes all that a run trains with, each thing once, and refuses in seconds what cannot train."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import ml_collections
import optax

from bitnet_jax.checkpoints import workdir as workdir_lib
from bitnet_jax.config import validation
from bitnet_jax.data import pipeline, splits
from bitnet_jax.data.pipeline import Pipeline
from bitnet_jax.distributed import cluster, devices
from bitnet_jax.logs import run_info
from bitnet_jax.models import build, initialize
from bitnet_jax.runtime import preemption, watchdog
from bitnet_jax.training import compilation, optim
from bitnet_jax.training.plan import Plan, make_plan
from bitnet_jax.training.run_control import RunControl, stop_waiting

_COUNTERS = 64  # Bytes of a state that are neither parameters nor averages nor the optimizer's.


@dataclasses.dataclass(frozen=True)
class Setup:
  """What a run trains with.

  Attributes:
    config: validated.
    control: the watchdog, the other processes and requests to stop.
    plan: how long the run is.
    train: the training split on its way to the devices; not loaded yet.
    test: the test split, likewise.
    model: maps images to logits, within a function mapped over the devices.
    optimizer: the optax chain.
    schedule: learning rate by step.
    environment: of this process, see `run_info.environment`, with 'kernels' and 'repeated'.
  """

  config: ml_collections.ConfigDict
  control: RunControl
  plan: Plan
  train: Pipeline
  test: Pipeline
  model: nn.Module
  optimizer: optax.GradientTransformation
  schedule: optax.Schedule
  environment: dict[str, Any]

  @property
  def identity(self) -> dict[str, Any]:
    """What the training split is, as JSON gives it back; `train` has to be loaded."""
    return {
      'num_examples': self.train.num_examples,
      'class_names': list(self.train.class_names),
      'image_shape': list(self.train.image_shape),
      'manifest': self.train.fingerprint,
    }


def prepare(config: ml_collections.ConfigDict, workdir: str, watch: watchdog.Watchdog) -> Setup:
  """Opens the splits and makes plan, model and optimizer; all processes have joined.

  Args:
    config: validated.
    workdir: claimed by the primary process.
    watch: ends a run that stalls.

  Raises:
    ConfigError: batches or batch norm's group do not fit the devices, or the data the network.
    DataError: a split is not there, or differs from its manifest.
    StorageError: there is no room for the checkpoints.
    PreemptedError: the run was asked to stop.
  """
  if config.data.verify:  # Hundreds of gigabytes may take any time to hash.
    watch.report('')
  validation.validate_devices(config, jax.device_count())
  sources = [
    splits.open_split(config, split, stop=preemption.requested)
    for split in (config.data.train_split, config.data.test_split)
  ]
  train = pipeline.open_training(config, sources[0], stop_waiting)
  test = pipeline.open_evaluation(config, sources[1], stop=stop_waiting)
  plan = make_plan(config, train.num_examples, train.steps_share_inputs)
  kernels = build.choose_kernels(config.model.kernels, config.model.dtype)
  model = build.make_model(config, len(train.class_names), devices.AXIS, kernels)
  optimizer, schedule = make_optimizer(config, plan)
  if cluster.is_primary():
    keep = config.checkpoint
    size = state_bytes(model, optimizer, train.image_shape)
    count = keep.keep_latest + keep.keep_best
    workdir_lib.check_space(workdir, state_bytes=size, checkpoints=count)
  cluster.barrier()
  compilation.enable_persistent_cache()
  watch.report(watchdog.STARTING)
  control = RunControl(watch, delay=plan.run_ahead)
  control.raise_if_stop_requested(0)
  repeated = plan.steps_per_execution > 1
  environment = {**run_info.environment(), 'kernels': kernels.name, 'repeated': repeated}
  return Setup(config, control, plan, train, test, model, optimizer, schedule, environment)


def load_data(setup: Setup) -> None:
  """Reads what has to be there before the first batch; raises DataError or PreemptedError."""
  setup.train.load()
  setup.control.raise_if_stop_requested(0)
  setup.test.load()
  setup.control.report(watchdog.STARTING)


def make_optimizer(
  config: ml_collections.ConfigDict, plan: Plan
) -> tuple[optax.GradientTransformation, optax.Schedule]:
  """Returns the optax chain of a configuration and its learning rate by step."""
  options = config.optim
  schedule = optim.make_schedule(
    schedule=options.schedule,
    learning_rate=options.learning_rate,
    drop_epochs=options.drop_epochs,
    drop_factor=options.drop_factor,
    warmup_epochs=options.warmup_epochs,
    steps_per_epoch=plan.steps_per_epoch,
    total_steps=plan.total_steps,
  )
  resets = options.drop_epochs if options.reset_momentum_at_drop else ()
  optimizer = optim.make_optimizer(
    schedule,
    momentum=options.momentum,
    nesterov=options.nesterov,
    weight_decay=options.weight_decay,
    reset_momentum_steps=optim.drop_steps(resets, plan.steps_per_epoch),
  )
  return optimizer, schedule


def state_bytes(
  model: nn.Module, optimizer: optax.GradientTransformation, image_shape: tuple[int, ...]
) -> int:
  """Returns the size of a training state, from shapes alone.

  Args:
    model: maps images to logits.
    optimizer: the optax chain.
    image_shape: (height, width, channels).
  """
  variables = initialize.shapes(model, image_shape)
  trees = variables, jax.eval_shape(optimizer.init, variables['params'])
  leaves = jax.tree.leaves(trees)
  return _COUNTERS + sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)
