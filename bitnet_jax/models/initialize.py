"""Draws a network's initial variables: bit for bit those of `model.init`, in less time.

`model.init` runs the network to find its shapes, and draws each parameter by separate operations,
so that dozens of copies of the same draw are compiled or loaded. Here the layers only record what
they would draw, and one loop draws all parameters of the same initializer and shape.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
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
class _Planned:
  """Describes a float32 variable that is still to be drawn.

  Attributes:
    init: draws the variable, `init(key, shape)`.
    shape: shape of the variable.
    place: the number that Flax folds into the network's key to make the variable's key.
  """

  init: nn.initializers.Initializer
  shape: tuple[int, ...]
  place: int = 0


class _Layer(layers.Layer):
  """Records the variables of a layer as `_Planned` and computes nothing."""

  @nn.nowrap
  def parameter(
    self, name: str, init: nn.initializers.Initializer, shape: tuple[int, ...]
  ) -> jax.Array:
    scope: Any = self.scope
    scope.rng_counters['params'] += 1
    place = _place((*scope.rngs['params'].suffix, scope.rng_counters['params']))
    self.put_variable('params', name, _Planned(init, shape, place))
    return jnp.zeros(shape)

  @nn.nowrap
  def statistic(
    self, name: str, init: nn.initializers.Initializer, shape: tuple[int, ...]
  ) -> jax.Array:
    self.put_variable('batch_stats', name, _Planned(init, shape))
    return jnp.zeros(shape)


class _Conv(_Layer, layers.Conv):
  @nn.nowrap
  def convolve(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
    sides = (-(-side // self.strides) for side in x.shape[1:-1])
    return jnp.zeros((x.shape[0], *sides, kernel.shape[-1]))


class _Norm(_Layer, layers.GroupedBatchNorm):
  @nn.nowrap
  def normalize(self, x: jax.Array, *_: Any) -> jax.Array:
    return x


class _Head(_Layer, layers.Head):
  pass


# Field of a network, the layer that the field makes, and the layer that replaces it in a plan.
_LAYERS = (
  ('conv', layers.Conv, _Conv),
  ('norm', layers.GroupedBatchNorm, _Norm),
  ('head', layers.Head, _Head),
)


def _place(path: Sequence[str | int]) -> int:
  """Hashes the module names that lead to a parameter, and its number in them, as Flax does."""
  digest = hashlib.sha1()
  for part in path:
    digest.update(part.encode() if isinstance(part, str) else bytes([part]))
  return int.from_bytes(digest.digest()[:4])


@functools.lru_cache(maxsize=1)
def _plan(model: nn.Module, image_shape: tuple[int, ...]) -> Tree:
  """Returns the variables as `_Planned`; those of layers not in `_LAYERS` as shapes alone."""
  makers: dict[str, Any] = {}
  for name, replaced, layer in _LAYERS:
    given = getattr(model, name, None)
    maker = given.func if isinstance(given, functools.partial) else given
    if maker is replaced:
      makers[name] = functools.partial(layer, **getattr(given, 'keywords', {}))
  planning: Any = model.clone(**makers)
  image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
  return jax.eval_shape(lambda image: planning.init(jax.random.key(0), image), image)


def shapes(model: nn.Module, image_shape: tuple[int, ...]) -> Tree:
  """Returns the shapes of the variables of `model.init(key, images)`.

  Args:
    model: the network, from `registry.create_model`.
    image_shape: (height, width, channels).
  """
  return jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(leaf.shape, getattr(leaf, 'dtype', np.float32)),
    _plan(model, image_shape),
    is_leaf=_is_planned,
  )


def initialize(model: nn.Module, seed: int, image_shape: tuple[int, ...]) -> Tree:
  """Returns the variables of `model.init(jax.random.key(seed, impl='rbg'), images)`, in NumPy.

  Args:
    model: the network, from `registry.create_model`.
    seed: seed of the key.
    image_shape: (height, width, channels).
  """
  leaves, structure = jax.tree.flatten(_plan(model, image_shape), is_leaf=_is_planned)
  if not all(map(_is_planned, leaves)):
    image = jnp.zeros((1, *image_shape), jnp.float32)
    return jax.device_get(jax.jit(model.init)(jax.random.key(seed, impl='rbg'), image))
  kinds: dict[Any, list[int]] = collections.defaultdict(list)
  for position, leaf in enumerate(leaves):
    if leaf.init in _FILLS:
      leaves[position] = np.full(leaf.shape, _FILLS[leaf.init], np.float32)
    else:
      kinds[leaf.init, leaf.shape].append(position)
  counts = [len(positions) for positions in kinds.values()]
  order = [position for positions in kinds.values() for position in positions]
  places = np.array([leaves[position].place for position in order], np.uint32)
  draw = jax.jit(functools.partial(_draw, list(kinds), counts))
  drawn = jax.device_get(draw(np.int32(seed), places))
  for position, value in zip(order, (value for values in drawn for value in values), strict=True):
    leaves[position] = value
  return jax.tree.unflatten(structure, leaves)


def _is_planned(leaf: Any) -> bool:
  return isinstance(leaf, _Planned)


def _draw(
  kinds: Sequence[Any], counts: Sequence[int], seed: jax.Array, places: jax.Array
) -> list[jax.Array]:
  """Draws `[count, *shape]` for each kind, (init, shape), whose places are the next `count`."""
  key = jax.random.key(seed, impl='rbg')
  keys = jax.vmap(jax.random.fold_in, (None, 0))(key, places)
  ends = np.cumsum(counts)
  return [
    lax.map(lambda key, init=init, shape=shape: init(key, shape), keys[end - count : end])
    for (init, shape), count, end in zip(kinds, counts, ends, strict=True)
  ]
