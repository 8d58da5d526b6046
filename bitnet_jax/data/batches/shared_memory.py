"""Batches from worker processes to their parent, through shared memory that is used over again.

Grain takes fresh shared memory for every batch; to the kernel its pages cost more than the copies
of all pixels. Here a worker keeps a few blocks. A byte at the head of each says whose turn it is:
the worker writes a batch and marks the block full, the parent copies it out and marks it empty.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
from collections.abc import Callable
from multiprocessing import shared_memory, util
from typing import Any

import numpy as np

from bitnet_jax import errors

Batch = dict[str, Any]

_EMPTY, _FULL = 0, 1
_DIRECTORY = '/dev/shm'
_HEAD = 64  # Bytes before the pixels, which keeps them aligned.


class Sender:
  """Gives, in a worker, the batches of `batches` with a parcel in the place of the pixels."""

  def __init__(self, batches: Callable[[int], Batch]):
    """Takes nothing yet: it has still to travel to its worker.

    Args:
      batches: gives a batch by its number, 'image' being uint8; can be pickled.
    """
    self._batches = batches
    self._blocks: list[shared_memory.SharedMemory] = []

  def __call__(self, number: int) -> Batch:
    """The batch; its 'image' names a block, and the shape of what lies in it.

    Raises:
      StorageError: there is too little shared memory.
    """
    batch = self._batches(number)
    image = batch['image']
    block = self._empty_block(image.nbytes)
    _pixels(block, image.shape)[...] = image
    _mark(block, _FULL)
    return {**batch, 'image': {'block': block.name, 'shape': image.shape}}

  def _empty_block(self, num_bytes: int) -> shared_memory.SharedMemory:
    for block in self._blocks:
      if _mark_of(block) == _EMPTY and block.size >= _HEAD + num_bytes:
        return block
    if not self._blocks:
      util.Finalize(None, self.close, exitpriority=0)  # A worker runs these as it ends.
    name = f'{name_of(os.getppid())}{secrets.token_hex(4)}'
    block = shared_memory.SharedMemory(name, create=True, size=_HEAD + num_bytes)
    self._blocks.append(block)
    _reserve(block)
    return block

  def close(self) -> None:
    """Frees the blocks, of which the parent may never have seen the last ones."""
    for block in self._blocks:
      with contextlib.suppress(FileNotFoundError):
        block.unlink()
      block.close()
    self._blocks.clear()


class Receiver:
  """Opens, in the parent, what senders give."""

  def __init__(self) -> None:
    """Knows no block yet."""
    self._blocks: dict[str, shared_memory.SharedMemory] = {}

  def __call__(self, batch: Batch) -> Batch:
    """The batch in arrays of its own, whether a sender gave it or not."""
    parcel = batch['image']
    if isinstance(parcel, np.ndarray):
      return {name: np.array(value) for name, value in batch.items()}
    others = {name: np.array(value) for name, value in batch.items() if name != 'image'}
    block = self._block(parcel['block'])
    image = _pixels(block, tuple(parcel['shape'])).copy()
    _mark(block, _EMPTY)
    return {'image': image, **others}

  def _block(self, name: str) -> shared_memory.SharedMemory:
    if name not in self._blocks:
      block = shared_memory.SharedMemory(name)
      block.unlink()  # Both hold it; without a name it ends with them, however they end.
      self._blocks[name] = block
    return self._blocks[name]

  def close(self) -> None:
    """Lets go of the blocks."""
    for block in self._blocks.values():
      block.close()
    self._blocks.clear()


def name_of(parent: int) -> str:
  """How the names of the blocks begin that the workers of a process make."""
  return f'bitnet_jax_{parent}_'


def _reserve(block: shared_memory.SharedMemory) -> None:
  """Takes the pages now: a write to a page that cannot be had would kill the process."""
  path = os.path.join(_DIRECTORY, block.name)
  if not os.path.exists(path):  # Not Linux.
    return
  try:
    with open(path, 'r+b') as file:
      os.posix_fallocate(file.fileno(), 0, block.size)
  except OSError as error:
    problem = f'no room for a batch of {block.size / 1e6:.1f} MB ({error.strerror})'
    remedy = 'enlarge it (docker run --shm-size=8g) or lower config.data.workers'
    raise errors.StorageError('shared memory', _DIRECTORY, problem, remedy) from error


def _bytes(block: shared_memory.SharedMemory) -> memoryview:
  assert block.buf is not None, 'closed'
  return block.buf


def _mark(block: shared_memory.SharedMemory, value: int) -> None:
  _bytes(block)[0] = value


def _mark_of(block: shared_memory.SharedMemory) -> int:
  return _bytes(block)[0]


def _pixels(block: shared_memory.SharedMemory, shape: tuple[int, ...]) -> np.ndarray:
  return np.frombuffer(_bytes(block), np.uint8, math.prod(shape), _HEAD).reshape(shape)
