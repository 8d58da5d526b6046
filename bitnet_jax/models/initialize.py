"""The numbers a network begins with: those of `model.init`, to the last bit, in less time.

`model.init` runs the network to find its shapes, and draws each parameter by operations of its
own, so that dozens of copies of the same drawing are compiled, or loaded. Here the layers only say
what they would draw, and parameters of one kind are drawn by one loop.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from bitnet_jax.models import layers

Tree = Any

_FILLS = {nn.initializers.zeros: 0.0, nn.initializers.ones: 1.0}


@jax.tree_util.register_static
@dataclasses.dataclass(frozen=True)
class Planned:
  """A variable that is not there yet, float32.

  Attributes:
    init: draws it, `init(key, shape)`.
    shape: of the variable.
    key: of its random numbers, as whole numbers; () where it has none.
  """

  init: nn.initializers.Initializer
  shape: tuple[int, ...]
  key: tuple[int, ...]


class _Plans(layers.Layer):
  """A layer that plans its variables and computes nothing."""

  @nn.nowrap
  def parameter(
    self, name: str, init: nn.initializers.Initializer, shape: tuple[int, ...]
  ) -> jax.Array:
    key: tuple[int, ...] = ()
    if init not in _FILLS:
      with jax.ensure_compile_time_eval():
        key = tuple(np.asarray(jax.random.key_data(self.make_rng('params'))).tolist())
    self.put_variable('params', name, Planned(init, shape, key))
    return jnp.zeros(shape)

  @nn.nowrap
  def statistic(
    self, name: str, init: nn.initializers.Initializer, shape: tuple[int, ...]
  ) -> jax.Array:
    self.put_variable('batch_stats', name, Planned(init, shape, ()))
    return jnp.zeros(shape)


class _Conv(_Plans, layers.Conv):
  @nn.nowrap
  def convolve(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
    sides = (-(-side // self.strides) for side in x.shape[1:-1])
    return jnp.zeros((x.shape[0], *sides, kernel.shape[-1]))


class _Norm(_Plans, layers.GroupedBatchNorm):
  @nn.nowrap
  def normalize(self, x: jax.Array, *_: Any) -> jax.Array:
    return x


class _Head(_Plans, layers.Head):
  pass


def plan(model: nn.Module, key: jax.Array, image_shape: tuple[int, ...]) -> Tree:
  """What `model.init(key, images)` would draw: its variables, a `Planned` each.

  Args:
    model: of `registry.create_model`.
    key: of the parameters.
    image_shape: (height, width, channels).
  """
  planning: Any = model.clone(
    conv=functools.partial(_Conv, **model.conv.keywords),
    norm=functools.partial(_Norm, **model.norm.keywords),
    head=_Head,
  )
  image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
  return jax.eval_shape(lambda image: planning.init(key, image), image)


def initialize(model: nn.Module, key: jax.Array, image_shape: tuple[int, ...]) -> Tree:
  """The variables of `model.init(key, images)`, as NumPy arrays; see `plan`."""
  leaves, structure = jax.tree.flatten(plan(model, key, image_shape), is_leaf=_is_planned)
  kinds: dict[Any, list[int]] = collections.defaultdict(list)
  for position, leaf in enumerate(leaves):
    if leaf.key:
      kinds[leaf.init, leaf.shape].append(position)
    else:
      leaves[position] = np.full(leaf.shape, _FILLS[leaf.init], np.float32)
  keys = [np.array([leaves[p].key for p in positions], np.uint32) for positions in kinds.values()]
  draw = functools.partial(_draw, list(kinds), str(jax.random.key_impl(key)))
  drawn = jax.device_get(jax.jit(draw)(keys))
  for positions, values in zip(kinds.values(), drawn, strict=True):
    for position, value in zip(positions, values, strict=True):
      leaves[position] = value
  return jax.tree.unflatten(structure, leaves)


def _is_planned(leaf: Any) -> bool:
  return isinstance(leaf, Planned)


def _draw(kinds: Sequence[Any], impl: str, keys: Sequence[jax.Array]) -> list[jax.Array]:
  """For each kind, (init, shape), one array for each of its keys."""

  def draw_one(init: Any, shape: tuple[int, ...], key: jax.Array) -> jax.Array:
    return init(jax.random.wrap_key_data(key, impl=impl), shape)

  return [
    lax.map(functools.partial(draw_one, *kind), own) for kind, own in zip(kinds, keys, strict=True)
  ]
