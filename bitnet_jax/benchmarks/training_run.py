"""Compares a training run, with all that its loop does, with the bare steps that it consists of."""

from __future__ import annotations

import pathlib
import tempfile
import time
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from PIL import Image

from bitnet_jax.training import train
from bitnet_jax.training.loop import TakeSteps

Tree = Any

_CLASSES, _SIZE = 10, 32
# Turns between two checkpoints: fewer than in any configuration, so that the cost shows.
_SAVE_EVERY = 3


class InTurns:
  """Takes training steps and, now and then, bare ones beside them, whose times are kept apart.

  Args:
    take_steps: the compiled steps.
    length: steps in a row of the loop, and then bare ones; no call goes past a multiple of it.

  Attributes:
    loop: seconds of each `length` steps with all that the loop does between them.
    bare: seconds of each `length` steps that follow each other directly.
  """

  def __init__(self, take_steps: TakeSteps, length: int) -> None:
    self._take_steps, self._length = take_steps, length
    self._taken, self._start = 0, 0.0
    self.loop: list[float] = []
    self.bare: list[float] = []

  def __call__(self, state: Tree, inputs: Tree, count: int) -> tuple[Tree, Tree]:
    """Returns the state and the report after `count` steps, as `loop.TakeSteps` does."""
    if self._taken % self._length == 0:
      jax.block_until_ready(state)
      if self._taken > self._length:  # The first steps compile.
        self.loop.append(time.perf_counter() - self._start)
      self.bare.append(self._bare_steps(jax.tree.map(jnp.copy, state), inputs, count))
      self._start = time.perf_counter()
    self._taken += count
    return self._take_steps(state, inputs, count)

  def _bare_steps(self, state: Tree, inputs: Tree, max_count: int) -> float:
    jax.block_until_ready(state)
    start = time.perf_counter()
    for taken in range(0, self._length, max_count):
      state, report = self._take_steps(state, inputs, min(max_count, self._length - taken))
    jax.block_until_ready(report)
    return time.perf_counter() - start


def measure(config: ml_collections.ConfigDict, *, rounds: int, length: int = 10) -> dict[str, Any]:
  """Trains on resident images of noise, with checkpoints, metrics and progress.

  Args:
    config: a configuration of a network for small images.
    rounds: how often loop and bare steps take turns.
    length: steps of a turn, of an epoch and between metrics.

  Returns:
    A JSON object: images/second of the loop and of bare steps, and what share of the bare steps'
    speed the loop has.
  """
  turns: list[InTurns] = []

  def wrap(take_steps: TakeSteps) -> TakeSteps:
    turns.append(InTurns(take_steps, length))
    return turns[0]

  with tempfile.TemporaryDirectory() as folder:
    config = config.copy_and_resolve_references()
    batch = config.global_batch_size
    _write_images(pathlib.Path(folder) / 'photos', length * batch, 10 * _CLASSES)
    config.data.name, config.data.dir = 'folder', f'{folder}/photos'
    config.data.image_size, config.num_epochs = _SIZE, rounds + 2.0
    config.log.every_steps, config.checkpoint.every_steps = length, _SAVE_EVERY * length
    config.eval.every_epochs = config.checkpoint.every_epochs = 0
    config.eval.batch_size = batch
    workdir = pathlib.Path(folder) / 'run'
    workdir.mkdir()
    train.train(config, str(workdir), wrap_steps=wrap)
  loop, bare = turns[0].loop, turns[0].bare[1 : 1 + len(turns[0].loop)]
  shares = np.divide(bare, loop)
  return {
    'loop': {'per_second': batch * length / float(np.median(loop))},
    'bare': {'per_second': batch * length / float(np.median(bare))},
    'share': {'median': float(np.median(shares)), 'whole': sum(bare) / sum(loop)},
  }


def _write_images(folder: pathlib.Path, train_images: int, test_images: int) -> None:
  rng = np.random.default_rng(0)
  for split, count in (('train', train_images), ('test', test_images)):
    for number in range(count):
      path = folder / split / f'class{number % _CLASSES}' / f'{number}.png'
      path.parent.mkdir(parents=True, exist_ok=True)
      Image.fromarray(rng.integers(0, 256, (_SIZE, _SIZE, 3), np.uint8)).save(path)
