"""Explains an out-of-memory fault: what a step needs, what the device has, a batch that fits."""

from __future__ import annotations

import re
import resource
from collections.abc import Callable
from typing import Any

import jax

from bitnet_jax import errors

Tree = Any

_EXHAUSTED = 'RESOURCE_EXHAUSTED'
_SHARE = 0.9  # Of the memory left that a suggested batch may take; allocators lose some.
_UNITS = {'': 1, 'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}
_ASKED = re.compile(r'allocat\w* (\d+(?:\.\d+)?) ?([KMGT]?)i?(?:B|bytes)')


def explain_out_of_memory(
  mapped: Callable[..., Tree], field: str, batch_size: int, fits: Callable[[int], bool]
) -> Callable[..., Tree]:
  """Returns a mapped function that reports memory that ran out as a fault of the batch's size.

  The first call waits for its results: what a step needs does not change afterwards.

  Args:
    mapped: function from `devices.map_devices`.
    field: configuration field of the batch's size.
    batch_size: examples of a batch, over all devices.
    fits: whether a batch of another size divides as it has to.

  Returns:
    A function of the same arguments that raises ConfigError where memory runs out.
  """
  shapes: Tree = None

  def guarded(*arguments: Tree) -> Tree:
    nonlocal shapes
    first = shapes is None
    if first:
      shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), arguments)
    try:
      results = mapped(*arguments)
      return jax.block_until_ready(results) if first else results
    except jax.errors.JaxRuntimeError as error:
      if not str(error).startswith(_EXHAUSTED):
        raise
      raise _explain(error, mapped, shapes, field, batch_size, fits) from error

  return guarded


def _explain(
  error: Exception,
  mapped: Any,
  shapes: Tree,
  field: str,
  batch_size: int,
  fits: Callable[[int], bool],
) -> errors.ConfigError:
  try:
    stats = mapped.lower(*shapes).compile().memory_analysis()
    fixed = stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
    temporary = stats.temp_size_in_bytes
    at_least = ''
  except Exception:  # Compiling may itself take too much memory.
    fixed, temporary, at_least = 0, _asked(str(error)), 'at least '
  have = device_memory() or 0
  size = largest_batch(batch_size, fixed, temporary, have, fits)
  remedy = f'use {size} or less' if size else 'take a smaller network or image, or more devices'
  problem = f'a step needs {at_least}{_gigabytes(fixed + temporary)} of memory on a device'
  return errors.ConfigError(field, batch_size, f'{problem}, which has {_gigabytes(have)}', remedy)


def largest_batch(
  batch_size: int, fixed: int, temporary: int, have: int, fits: Callable[[int], bool]
) -> int:
  """Returns the largest batch that should fit, 0 if none does.

  All of `temporary` is taken to grow with the batch, so that the estimate is low.

  Args:
    batch_size: the one that did not fit.
    fixed: bytes of what a step is given and gives back, whatever the batch.
    temporary: bytes of what it needs in between with that batch.
    have: bytes of a device.
    fits: whether a batch of some size divides as it has to.
  """
  room = _SHARE * have - fixed
  largest = int(batch_size * room / temporary) if temporary and room > 0 else 0
  sizes = range(min(largest, batch_size - 1), 0, -1)
  return next((size for size in sizes if fits(size)), 0)


def device_memory() -> int:
  """Returns the bytes that one local device has for this process."""
  stats = jax.local_devices()[0].memory_stats()
  if stats and 'bytes_limit' in stats:
    return stats['bytes_limit']
  with open('/proc/meminfo') as file:  # The host's, for all devices that it plays.
    lines = dict(line.split(':') for line in file)
  available = int(lines['MemAvailable'].split()[0]) * 1024
  limit, _ = resource.getrlimit(resource.RLIMIT_AS)
  if limit != resource.RLIM_INFINITY:
    available = min(available, limit)
  return available // jax.local_device_count()


def _asked(message: str) -> int:
  """Returns the bytes of the allocation that failed, 0 if XLA's message has none."""
  match = _ASKED.search(message)
  return int(float(match[1]) * _UNITS[match[2]]) if match else 0


def _gigabytes(size: int) -> str:
  return f'{size / 1e9:,.1f} GB'
