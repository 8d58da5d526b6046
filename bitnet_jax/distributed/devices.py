"""Maps functions over all devices by pmap, places arrays on devices and reads them back.

No other module names pmap. Every array that a mapped function takes or gives has a leading
dimension of the local devices: replicated values hold the same on each, split ones a part each.
"""

from __future__ import annotations

import collections
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import flatten_util, lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from bitnet_jax.distributed import cluster

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
  run = _one_by_one(mapped) if _through_gloo() else mapped

  def checked(*arguments: Tree) -> Tree:
    for leaf in jax.tree.leaves(arguments):
      if not np.ndim(leaf):
        raise ValueError(f'no leading dimension in {leaf!r} on {num_devices} devices')
      if leaf.shape[0] != num_devices:
        raise ValueError(f'leading dimension {leaf.shape[0]} on {num_devices} devices')
    return run(*arguments)

  checked.lower = mapped.lower  # type: ignore[attr-defined]
  return checked


def _through_gloo() -> bool:
  """Returns whether devices of several processes talk through Gloo, as between CPUs."""
  return jax.process_count() > 1 and jax.default_backend() == 'cpu'


def _one_by_one(mapped: Any) -> Callable[..., Any]:
  """Returns a function that waits for all processes before its first call, and for each call.

  Gloo gives up where processes come to an operation more than 30 s apart, and nothing keeps the
  operations of programs that overlap in one order.
  """
  called = False

  def run(*arguments: Tree) -> Tree:
    nonlocal called
    if not called:
      called = True
      cluster.barrier()
    return jax.block_until_ready(mapped(*arguments))

  return run


def replicate(tree: Tree) -> Tree:
  """Puts the same arrays on every local device: `[...]` becomes `[devices, ...]`."""
  num_devices = jax.local_device_count()

  def put(leaf: Any) -> jax.Array:
    array = np.asarray(leaf)
    return jax.device_put(np.broadcast_to(array[None], (num_devices, *array.shape)), _sharding())

  return jax.tree.map(put, tree)


def shapes(tree: Tree) -> Tree:
  """Returns the shapes, with their sharding, of what `replicate`, `scatter` or `place` would give.

  Args:
    tree: of arrays or shapes, as one device has them.
  """
  num_devices, sharding = jax.local_device_count(), _sharding()

  def shape(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((num_devices, *leaf.shape), leaf.dtype, sharding=sharding)

  return jax.tree.map(shape, tree)


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
  """Returns the first device's copy of replicated arrays, as NumPy arrays of their own memory."""
  first = jax.tree.map(lambda leaf: leaf.addressable_data(0), tree)
  return jax.tree.map(lambda leaf: np.array(leaf[0]), jax.device_get(first))


class StopConsensus:
  """Answers whether a flag is up on any process: the same on all of them, a few calls later.

  A call is a collective operation: all processes make the same calls in the same order. Once the
  answer is yes, it stays so.
  """

  def __init__(self, flag: Callable[[], bool], *, delay: int):
    """Compiles nothing yet.

    Args:
      flag: of this process.
      delay: calls after which an answer is waited for; until then the device is not.
    """
    self._flag, self._delay, self._agreed = flag, delay, False
    self._alone = jax.process_count() == 1
    self._pending: collections.deque[jax.Array] = collections.deque()
    if not self._alone:
      self._sum = map_devices(sum_over_devices)
      self._inputs = [replicate(np.int32(value)) for value in (0, 1)]

  def __call__(self, *, now: bool = False) -> bool:
    """Returns the answer; with `now` that of this very call."""
    if self._alone:
      return self._flag()
    if not self._agreed:
      self._pending.append(self._sum(self._inputs[self._flag()]))
      while self._pending and (now or len(self._pending) > self._delay):
        self._agreed |= bool(read_back(self._pending.popleft()))
    return self._agreed


def mean_over_devices(tree: Tree) -> Tree:
  """Returns the mean over all devices, inside a mapped function."""
  if lax.axis_size(AXIS) == 1:
    # Without hundreds of divisions by 1, which would be traced and then dropped. Without the sum,
    # XLA would fuse otherwise, and round otherwise.
    return sum_over_devices(tree)
  if not _through_gloo():
    return lax.pmean(tree, AXIS)  # XLA joins them where that pays.
  # Between processes on CPUs each array costs a message; one of all is many times faster.
  flat, restore = flatten_util.ravel_pytree(tree)
  return restore(lax.pmean(flat, AXIS))


def sum_over_devices(tree: Tree) -> Tree:
  """Returns the sum over all devices, inside a mapped function."""
  return lax.psum(tree, AXIS)


def global_positions(local_batch: int) -> jax.Array:
  """Returns the positions of this device's examples in the global batch, int32, when mapped."""
  return lax.axis_index(AXIS) * local_batch + jnp.arange(local_batch, dtype=jnp.int32)
