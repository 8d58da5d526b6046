"""Many devices and processes: pmap, what lies on each device, and reading it back.

No other module names pmap. Every array that a mapped function takes or gives has a leading
dimension of the local devices: replicated values hold the same on each, split ones a part each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = 'batch'

Tree = Any


def _sharding() -> NamedSharding:
  # The mesh's axis bears pmap's name: any other sharding makes pmap compile twice.
  return NamedSharding(Mesh(np.array(jax.local_devices()), (AXIS,)), PartitionSpec(AXIS))


def map_devices(
  function: Callable[..., Any], *, donate: tuple[int, ...] = ()
) -> Callable[..., Any]:
  """Maps `function` over all devices of all processes, along the axis `AXIS`.

  Args:
    function: takes and gives what one device holds; `lax.pmean(x, AXIS)` averages over devices.
    donate: positions of arguments whose memory the results may take; they are deleted.

  Returns:
    A function of arrays with a leading dimension of the local devices. It raises ValueError where
    that dimension differs (pmap itself would silently run on fewer devices).
  """
  mapped = jax.pmap(function, axis_name=AXIS, donate_argnums=donate)
  num_devices = jax.local_device_count()

  def checked(*arguments: Tree) -> Tree:
    for leaf in jax.tree.leaves(arguments):
      if not np.ndim(leaf):
        raise ValueError(f'no leading dimension in {leaf!r} on {num_devices} devices')
      if leaf.shape[0] != num_devices:
        raise ValueError(f'leading dimension {leaf.shape[0]} on {num_devices} devices')
    return mapped(*arguments)

  checked.lower = mapped.lower  # type: ignore[attr-defined]
  return checked


def replicate(tree: Tree) -> Tree:
  """Puts the same arrays on every local device: `[...]` becomes `[devices, ...]`."""
  num_devices = jax.local_device_count()

  def put(leaf: Any) -> jax.Array:
    array = np.asarray(leaf)
    return jax.device_put(np.broadcast_to(array[None], (num_devices, *array.shape)), _sharding())

  return jax.tree.map(put, tree)


def scatter(tree: Tree) -> Tree:
  """Puts each device's part on it: `[devices of all processes, ...]` to `[local devices, ...]`.

  Raises:
    ValueError: the first dimension is not the number of devices.
  """
  local = jax.local_device_count()

  def put(leaf: Any) -> jax.Array:
    array = np.asarray(leaf)
    if array.shape[0] != jax.device_count():
      raise ValueError(f'first dimension {array.shape[0]} for {jax.device_count()} devices')
    first = jax.process_index() * local
    return jax.device_put(array[first : first + local], _sharding())

  return jax.tree.map(put, tree)


def place(tree: Tree) -> Tree:
  """Puts this process's part on its devices: `[batch, ...]` to `[local devices, part, ...]`.

  Raises:
    ValueError: the first dimension does not divide by the local devices.
  """
  local = jax.local_device_count()
  return jax.tree.map(
    lambda array: jax.device_put(array.reshape(local, -1, *array.shape[1:]), _sharding()), tree
  )


def read_back(tree: Tree) -> Tree:
  """The first device's copy of replicated arrays, as NumPy arrays that no donation can reach."""
  first = jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)
  return jax.tree.map(lambda leaf: np.array(leaf[0]), jax.device_get(first))


def mean_over_devices(tree: Tree) -> Tree:
  """Inside a mapped function: the mean over all devices."""
  return lax.pmean(tree, AXIS)


def sum_over_devices(tree: Tree) -> Tree:
  """Inside a mapped function: the sum over all devices."""
  return lax.psum(tree, AXIS)


def global_positions(local_batch: int) -> jax.Array:
  """Inside a mapped function: positions of this device's examples in the global batch, int32."""
  return lax.axis_index(AXIS) * local_batch + jnp.arange(local_batch, dtype=jnp.int32)
