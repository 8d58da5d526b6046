"""Checkpoints with Orbax: the newest few and the best, saved in the background.

A step's checkpoint holds the training state and a JSON record (configuration, progress). States
are NumPy trees, which every process of a run can hold.
"""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from bitnet_jax import errors

Tree = Any

# Ranks below every evaluated checkpoint. Orbax loses the best one when a metric is missing or NaN.
NOT_EVALUATED = 2.0


def _accuracy(metrics: dict[str, float]) -> float:
  return -metrics['error']


def _shapes(tree: Tree) -> dict[str, str]:
  """'float32[3,3,16,64]' by the path of each array."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {jax.tree_util.keystr(path): _shape(np.asarray(leaf)) for path, leaf in leaves}


def _shape(array: np.ndarray) -> str:
  return f'{array.dtype}[{",".join(map(str, array.shape))}]'


class Checkpoints:
  """The checkpoints of a work directory.

  Attributes:
    directory: where they lie, one folder a step.
  """

  def __init__(self, workdir: str, *, keep_latest: int = 2, keep_best: int = 1):
    """Opens or makes the directory.

    Args:
      workdir: of the run.
      keep_latest: newest checkpoints kept.
      keep_best: checkpoints of least test error kept beside them; 0 for none.
    """
    self.directory = pathlib.Path(workdir).absolute() / 'checkpoints'
    policies: list[Any] = [checkpoint_managers.LatestN(keep_latest)]
    if keep_best:
      policies.append(checkpoint_managers.BestN(get_metric_fn=_accuracy, n=keep_best))
    options = ocp.CheckpointManagerOptions(
      best_fn=_accuracy,
      best_mode='max',
      preservation_policy=checkpoint_managers.AnyPreservationPolicy(policies),
      enable_async_checkpointing=True,
      cleanup_tmp_directories=True,
    )
    self._manager = ocp.CheckpointManager(self.directory, options=options)

  def save(self, step: int, state: Tree, record: dict[str, Any], error: float | None) -> None:
    """Begins to save; returns once the arrays are copied.

    Args:
      step: steps taken; a step that is there already is left alone.
      state: tree of NumPy arrays.
      record: JSON object.
      error: test error as a fraction, None if this step was not evaluated.
    """
    if step in self._manager.all_steps():
      return
    items = ocp.args.Composite(
      state=ocp.args.StandardSave(state),
      record=ocp.args.JsonSave({'run': record, 'shapes': _shapes(state)}),
    )
    metric = error if error is not None and np.isfinite(error) else NOT_EVALUATED
    self._manager.save(step, args=items, metrics={'error': float(metric)}, force=True)

  def latest_step(self) -> int | None:
    """The newest step that was saved whole, None if there is none."""
    return self._manager.latest_step()

  def best_step(self) -> int | None:
    """The step of least test error among those kept."""
    return self._manager.best_step()

  def path(self, step: int) -> str:
    """Where a step's checkpoint lies."""
    return str(self.directory / str(step))

  def read_record(self, step: int) -> dict[str, Any]:
    """The JSON record of a step."""
    return self._read(step)['run']

  def restore(self, step: int, template: Tree) -> Tree:
    """The state of a step.

    Args:
      step: one that was saved.
      template: tree of arrays with the state's structure, shapes and types.

    Returns:
      A tree of NumPy arrays.

    Raises:
      CheckpointError: it cannot be read, or its shapes differ from the template's.
    """
    # Orbax fills an array of another shape than the stored one without a word.
    stored, wanted = self._read(step)['shapes'], _shapes(template)
    for name in [*wanted, *stored]:
      if stored.get(name) != wanted.get(name):
        raise errors.CheckpointError(
          f'checkpoint {self.path(step)} {name}',
          stored.get(name, 'absent'),
          f'the network has {wanted.get(name, "no such array")}',
          'restore the configuration it was trained with, or take a new --workdir',
        )
    zeros = jax.tree.map(lambda x: np.zeros(np.shape(x), np.asarray(x).dtype), template)
    return self._restore(step, ocp.args.Composite(state=ocp.args.StandardRestore(zeros)))['state']

  def _read(self, step: int) -> dict[str, Any]:
    return self._restore(step, ocp.args.Composite(record=ocp.args.JsonRestore()))['record']

  def _restore(self, step: int, items: ocp.args.Composite) -> Any:
    try:
      return self._manager.restore(step, args=items)
    except Exception as error:  # Orbax raises bare Exception for damaged files.
      raise errors.CheckpointError(
        'checkpoint',
        self.path(step),
        f'cannot be restored ({next(iter(str(error).splitlines()), type(error).__name__)})',
        'delete this step to fall back on an older one, or take a new --workdir',
      ) from error

  def wait(self) -> None:
    """Returns when everything is on disk; raises what a save in the background raised."""
    self._manager.wait_until_finished()

  def close(self) -> None:
    """Waits, then lets go of the directory."""
    self._manager.wait_until_finished()
    self._manager.close()
