"""Builds a network with a batch in memory, whose training step and use the benchmarks time."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from bitnet_jax.analysis.audit import counts
from bitnet_jax.benchmarks import timing
from bitnet_jax.checkpoints.pretrained import Trained
from bitnet_jax.config.networks import NETWORKS
from bitnet_jax.data import pipeline, types
from bitnet_jax.distributed import devices
from bitnet_jax.inference import predictor
from bitnet_jax.models import build
from bitnet_jax.training import compilation, metrics, setup, steps
from bitnet_jax.training.plan import Plan, steps_per_execution

Tree = Any

_STEPS_PER_EPOCH = 1000


class Case:
  """Holds the network of a configuration, its weights and a batch of noise.

  Attributes:
    config: the validated configuration.
    images: `[batch, size, size, 3]`, float32, as the network takes them.
    labels: `[batch]`, int32.
    num_classes: 10, or 1000 for a network of ILSVRC12.
  """

  def __init__(self, config: ml_collections.ConfigDict) -> None:
    self.config = config
    entry = NETWORKS[config.model.name]
    self.num_classes = entry.num_classes
    size = config.data.image_size or entry.image_size
    rng = np.random.default_rng(0)
    batch = config.global_batch_size
    self.images = rng.normal(size=(batch, size, size, 3)).astype(np.float32)
    self.labels = rng.integers(0, self.num_classes, batch).astype(np.int32)
    plan = Plan(_STEPS_PER_EPOCH, round(_STEPS_PER_EPOCH * config.num_epochs))
    self._model = self.model()
    self._optimizer, self._schedule = setup.make_optimizer(config, plan)
    self._max_count = steps_per_execution(config, pipeline.is_resident(config))

  @functools.cached_property
  def state(self) -> steps.TrainState:
    """Returns the state before the first step, as NumPy arrays."""
    shape = self.images.shape[1:]
    return steps.create_state(self._model, self._optimizer, self.config.seed, shape)

  @property
  def variables(self) -> Tree:
    """Returns parameters and running statistics, as NumPy arrays."""
    return {'params': self.state.params, 'batch_stats': self.state.batch_stats}

  def model(self, dtype: str = '', axis_name: str = devices.AXIS, kernels: str = '') -> Any:
    """Returns the network, with the configuration's type and kernels unless others are given."""
    config = self.config.copy_and_resolve_references()
    config.model.kernels = kernels or config.model.kernels
    config.model.dtype = dtype or config.model.dtype
    return build.make_model(config, self.num_classes, axis_name)

  def multiply_adds(self) -> int:
    """Counts the multiply-adds of the forward pass for the batch, in the traced program."""
    model = self.model(axis_name='', kernels='xla')
    traced = jax.make_jaxpr(model.apply)(self.variables, self.images)
    return sum(counts.multiply_adds(eqn) for eqn in counts.equations(traced.jaxpr))

  def take_steps(self) -> Callable[[Tree, Tree, jax.Array], tuple[Tree, Tree]]:
    """Returns the steps that train, mapped over the devices.

    The steps take the same batch each time and do not augment it.
    """

    def fetch(inputs: Tree, _: jax.Array) -> types.Batch:
      return {**inputs, 'mask': jnp.ones(inputs['label'].shape, jnp.float32)}

    step = steps.make_train_step(
      self._model,
      self._optimizer,
      self._schedule,
      fetch_batch=fetch,
      augment=lambda images, *_: images,
      steps_per_epoch=_STEPS_PER_EPOCH,
      log_every_steps=50,
    )
    return devices.map_devices(steps.make_multi_step(step, self._max_count), donate=(0,))

  def inputs(self) -> Tree:
    """Places this process's part of the batch on its devices."""
    part = len(self.labels) // jax.process_count()
    own = slice(jax.process_index() * part, (jax.process_index() + 1) * part)
    return devices.place({'image': self.images[own], 'label': self.labels[own]})

  def side(self, count: int = 1) -> timing.Side:
    """Returns a function that takes `count` training steps, as a run would, and returns seconds."""
    take_steps, inputs = self.take_steps(), self.inputs()
    sizes = [min(self._max_count, count - first) for first in range(0, count, self._max_count)]
    step_counts = {size: devices.replicate(np.int32(size)) for size in set(sizes)}
    # As in a run, the program is compiled or loaded while the parameters are drawn.
    fresh = steps.state_shapes(self._model, self._optimizer, self.images.shape[1:])
    arguments = devices.shapes(fresh), inputs, next(iter(step_counts.values()))
    wait_for_compilation = compilation.compile_ahead(take_steps, *arguments)
    state = devices.replicate(self.state)
    wait_for_compilation()

    def run() -> Tree:
      nonlocal state
      for size in sizes:
        state, report = take_steps(state, inputs, step_counts[size])
      return report

    return functools.partial(timing.seconds_of, run)

  def in_use(self) -> Callable[[], np.ndarray]:
    """Returns a function that returns the batch's logits, from the network as `predict` runs it."""
    images = jax.device_put(self.images)
    network = Trained(
      self.config, tuple(map(str, range(self.num_classes))), 0, self.variables, images.shape[1:]
    )
    return functools.partial(predictor.from_run(network, len(images)), images)

  def check(self) -> dict[str, Any]:
    """Returns the logits, the loss and the gradients of a training step in float32."""
    model = self.model('float32', '')

    def loss(params: Tree) -> tuple[jax.Array, jax.Array]:
      variables = {**self.variables, 'params': params}
      logits, _ = model.apply(variables, self.images, train=True, mutable=['batch_stats'])
      return metrics.cross_entropy(logits, jnp.asarray(self.labels)).mean(), logits

    (value, logits), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(self.state.params)
    return {'loss': float(value), 'logits': np.asarray(logits), 'gradients': gradients}
