"""The training loop, with all it does besides, beside the bare steps it consists of."""

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
# Turns from one checkpoint to the next: fewer than in any configuration, so that the cost shows.
_SAVE_EVERY = 3


class InTurns:
  """Training steps that now and then are taken bare too; both times are kept apart.

  Args:
    take_steps: the compiled ones.
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
    """The state and the report after `count` steps; see `train.make_steps`."""
    if self._taken % self._length == 0:
      jax.block_until_ready(state)
      if self._taken > self._length:  # The first steps compile.
        self.loop.append(time.perf_counter() - self._start)
      self.bare.append(self._bare_steps(jax.tree.map(jnp.copy, state), inputs, count))
      self._start = time.perf_counter()
    self._taken += count
    return self._take_steps(state, inputs, count)

  def _bare_steps(self, state: Tree, inputs: Tree, most: int) -> float:
    jax.block_until_ready(state)
    start = time.perf_counter()
    for taken in range(0, self._length, most):
      state, report = self._take_steps(state, inputs, min(most, self._length - taken))
    jax.block_until_ready(report)
    return time.perf_counter() - start


def measure(config: ml_collections.ConfigDict, *, rounds: int, length: int = 10) -> dict[str, Any]:
  """Trains on images of noise by the resident way, with checkpoints, metrics and progress.

  Args:
    config: of a network for small images.
    rounds: how often loop and bare steps take turns.
    length: steps of a turn, of an epoch and between metrics.

  Returns:
    A JSON object: images a second of the loop and of bare steps, and what share of the bare
    steps' speed the loop has.
  """
  turns: list[InTurns] = []

  def wrap(take_steps: TakeSteps) -> TakeSteps:
    turns.append(InTurns(take_steps, length))
    return turns[0]

  with tempfile.TemporaryDirectory() as folder:
    made = config.copy_and_resolve_references()
    batch = made.global_batch_size
    _write_images(pathlib.Path(folder) / 'photos', length * batch, 10 * _CLASSES)
    made.data.name, made.data.dir = 'folder', f'{folder}/photos'
    made.data.image_size, made.num_epochs = _SIZE, rounds + 2.0
    made.log.every_steps, made.checkpoint.every_steps = length, _SAVE_EVERY * length
    made.eval.every_epochs = made.checkpoint.every_epochs = 0
    made.eval.batch_size = batch
    workdir = pathlib.Path(folder) / 'run'
    workdir.mkdir()
    train.train(made, str(workdir), wrap_steps=wrap)
  loop, bare = turns[0].loop, turns[0].bare[1 : 1 + len(turns[0].loop)]
  pairs = [own / whole for whole, own in zip(loop, bare, strict=True)]
  return {
    'loop': {'per_second': batch * length / float(np.median(loop))},
    'bare': {'per_second': batch * length / float(np.median(bare))},
    'share': {'median': float(np.median(pairs)), 'whole': sum(bare) / sum(loop)},
  }


def _write_images(folder: pathlib.Path, train_images: int, test_images: int) -> None:
  rng = np.random.default_rng(0)
  for split, count in (('train', train_images), ('test', test_images)):
    for number in range(count):
      path = folder / split / f'class{number % _CLASSES}' / f'{number}.png'
      path.parent.mkdir(parents=True, exist_ok=True)
      Image.fromarray(rng.integers(0, 256, (_SIZE, _SIZE, 3), np.uint8)).save(path)
