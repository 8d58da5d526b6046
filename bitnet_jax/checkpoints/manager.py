"""Saves checkpoints with Orbax in the background, keeps the newest and the best, verifies them.

A step's checkpoint holds the training state and a JSON record (configuration, progress). States
are NumPy trees. Of several processes the first alone opens, reads and writes checkpoints. Beside
each step lies a SHA-256 manifest, `manifests/STEP.json`, written in a thread when the step is
complete. At a start the manifests of all steps that are kept are verified, once; a step that does
not match its own is set aside in `damaged/` before Orbax, which reads a file of every step, opens
any; the newest of the others is used.
"""

from __future__ import annotations

import contextlib
import pathlib
import shutil
import threading
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from bitnet_jax import errors
from bitnet_jax.checkpoints import layout, manifest, orbax_options, quarantine
from bitnet_jax.checkpoints.workdir import DirectoryHandle

Tree = Any

# Parts of a state that have to be finite. The sums for the logs need not be.
LEARNED = ('params', 'batch_stats', 'opt_state')


def _shapes(tree: Tree) -> dict[str, str]:
  """Returns a text as 'float32[3,3,16,64]' by the path of each array."""
  leaves = jax.tree_util.tree_leaves_with_path(tree)
  return {jax.tree_util.keystr(path): _shape(np.asarray(leaf)) for path, leaf in leaves}


def _shape(array: np.ndarray) -> str:
  return f'{array.dtype}[{",".join(map(str, array.shape))}]'


def _first_line(fault: Exception) -> str:
  return next(iter(str(fault).splitlines()), type(fault).__name__)[:200]


def check_finite(state: Tree, last_good: int | None) -> None:
  """Raises DivergedError for the first array of `LEARNED` with a value that is not finite."""
  for path, leaf in jax.tree_util.tree_leaves_with_path(state):
    name = jax.tree_util.keystr(path, simple=True, separator='/')
    if name.split('/')[0] in LEARNED and not np.isfinite(leaf).all():
      raise errors.DivergedError(
        'parameters',
        name,
        f'not finite, so not saved; last good checkpoint: {last_good or "none"}',
        'lower config.optim.learning_rate',
      )


class Checkpoints:
  """Saves, lists and restores the checkpoints of a work directory.

  Attributes:
    directory: where they lie, one folder a step.
  """

  def __init__(
    self,
    workdir: str,
    *,
    keep_latest: int = 2,
    keep_best: int = 1,
    check_workdir: Callable[[], None] | None = None,
  ):
    """Opens or makes the directory; verifies every step and quarantines the damaged ones.

    Args:
      workdir: of the run.
      keep_latest: newest checkpoints kept; 2 at least.
      keep_best: checkpoints of smallest test error kept beside them; 0 for none.
      check_workdir: asked before each save, see `workdir.Claim.check`.

    Raises:
      CheckpointError: there were steps, and not one of them is whole.
      StorageError: the directories cannot be made, or a damaged step cannot be moved.
    """
    self._workdir = pathlib.Path(workdir).absolute()
    self.directory = self._workdir / layout.CHECKPOINTS
    self._manifests = self._workdir / layout.MANIFESTS
    # Hashed once. Before a read, seconds later under the lock of the work directory, names, kinds
    # and sizes alone are compared again.
    self._verified = quarantine.quarantine(self._workdir)
    self._make_directories()
    try:
      options = orbax_options.manager_options(keep_latest, keep_best)
      self._manager = ocp.CheckpointManager(self.directory, options=options)
    except OSError as fault:
      problem, remedy = f'cannot be opened ({_first_line(fault)})', 'make it accessible, run again'
      raise errors.StorageError('checkpoints', self.directory, problem, remedy) from fault
    except Exception as fault:  # A manifest that was made up vouches for what it cannot read.
      problem, remedy = f'cannot be opened ({_first_line(fault)})', 'take a new --workdir'
      raise errors.CheckpointError('checkpoints', self.directory, problem, remedy) from fault
    self._held = DirectoryHandle(self.directory)
    self._check_workdir = check_workdir or self._held.check
    self._finisher: threading.Thread | None = None
    self._fault: Exception | None = None
    self._size = 0  # Bytes of the state that is being saved.

  def save(self, step: int, state: Tree, record: dict[str, Any], error: float | None) -> None:
    """Begins to save; returns once the arrays are copied.

    Args:
      step: steps taken; what was saved of that step before is replaced.
      state: tree of NumPy arrays.
      record: JSON object.
      error: test error as a fraction, None if this step was not evaluated.

    Raises:
      DivergedError: a learned value is not finite; nothing is written.
      StorageError: this save, or the one before it, could not be written.
    """
    items = ocp.args.Composite(
      state=ocp.args.StandardSave(state),
      record=ocp.args.JsonSave({'run': record, 'shapes': _shapes(state)}),
    )
    metric = error if error is not None and np.isfinite(error) else orbax_options.NOT_EVALUATED
    self.wait()
    self._check_directory()
    check_finite(state, self.latest_step())
    self._size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    try:
      # It may outlive its step, and would then speak of this one.
      self._manifest(step).unlink(missing_ok=True)
      self._verified.discard(step)
      if step in self._manager.all_steps():
        self._manager.delete(step)
      self._manager.save(step, args=items, metrics={'error': float(metric)}, force=True)
    except Exception as fault:  # Orbax raises what its storage raised, of many types.
      raise self._storage_error(fault) from fault
    self._finisher = threading.Thread(target=self._finish, name='finish-checkpoint')
    self._finisher.start()

  def latest_step(self) -> int | None:
    """Returns the newest step that is whole, None if there is none."""
    return self._manager.latest_step()

  def steps(self) -> list[int]:
    """Returns all saved steps, oldest first."""
    return sorted(self._manager.all_steps())

  def best_step(self) -> int | None:
    """Returns the step of smallest test error among those kept."""
    return self._manager.best_step()

  def path(self, step: int) -> str:
    """Returns the path of a step's checkpoint."""
    return str(self.directory / str(step))

  def read_record(self, step: int) -> dict[str, Any]:
    """Returns the JSON record of a step."""
    return self._read(step)['run']

  def restore(self, step: int, template: Tree) -> Tree:
    """Returns the state of a step, verified.

    Args:
      step: one that was saved.
      template: tree of arrays with the state's structure, shapes and types.

    Returns:
      A tree of NumPy arrays.

    Raises:
      CheckpointError: it is damaged, or its shapes differ from the template's.
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

  def wait(self) -> None:
    """Returns when everything is on disk.

    Raises:
      StorageError: a save in the background could not be written.
    """
    if self._finisher:
      self._finisher.join()
    if self._fault:
      fault, self._fault = self._fault, None
      raise self._storage_error(fault) from fault

  def close(self) -> None:
    """Waits, then lets go of the directory; raises as `wait` does."""
    try:
      self.wait()
    finally:
      with contextlib.suppress(Exception):  # It raises again what failed, which was told.
        self._manager.close()
      self._held.close()

  def _read(self, step: int) -> dict[str, Any]:
    return self._restore(step, ocp.args.Composite(record=ocp.args.JsonRestore()))['record']

  def _restore(self, step: int, items: ocp.args.Composite) -> Any:
    verified = step in self._verified
    fault = manifest.find_fault(
      self.directory / str(step), self._manifest(step), hashes=not verified
    )
    if fault:
      remedy = 'run again to fall back on an older step, or take a new --workdir'
      raise errors.CheckpointError('checkpoint', self.path(step), fault, remedy)
    self._verified.add(step)
    try:
      return self._manager.restore(step, args=items)
    except Exception as error:  # Orbax raises bare Exception for what it cannot read.
      fault = f'it is whole, but cannot be restored ({_first_line(error)})'
      remedy = 'use the versions in run.json, or move it elsewhere to fall back on an older step'
      raise errors.CheckpointError('checkpoint', self.path(step), fault, remedy) from error

  def _storage_error(self, fault: Exception) -> errors.StorageError:
    if isinstance(fault, errors.StorageError):
      return fault
    self._check_directory()
    free = shutil.disk_usage(self._workdir).free
    if free <= 2 * self._size:
      needs = f'needs {self._size / 1e6:,.1f} MB, has {free / 1e6:,.1f} MB'
      remedy = 'free space, or lower config.checkpoint.keep_latest'
    else:
      needs, remedy = _first_line(fault), errors.remedy_of(errors.number_of(fault))
    problem = f'a checkpoint could not be written: {needs}'
    remedy += '; steps saved before are whole'
    return errors.StorageError('workdir', self._workdir, problem, remedy)

  def _check_directory(self) -> None:
    """Raises StorageError if the directory is gone; Orbax would make it anew, without the lock."""
    self._check_workdir()
    self._held.check()

  def _make_directories(self) -> None:
    for path in (self._manifests, self.directory):
      try:
        path.mkdir(parents=True, exist_ok=True)
      except OSError as error:
        problem, remedy = error.strerror or str(error), 'remove it, or take a new --workdir'
        raise errors.StorageError('workdir', path, problem, remedy) from error

  def _manifest(self, step: int) -> pathlib.Path:
    return self._manifests / f'{step}.json'

  def _finish(self) -> None:
    """Runs in a thread of its own: the manifest is written when Orbax is done with the step."""
    try:
      self._manager.wait_until_finished()
      self._write_manifests()
    except Exception as fault:  # As in `save`; the main thread raises it.
      self._fault = fault

  def _write_manifests(self) -> None:
    self._check_directory()
    steps = layout.steps_of(self._workdir, layout.CHECKPOINTS)
    for step in steps:
      if not self._manifest(step).exists():
        self._check_complete(step)
        manifest.write(self.directory / str(step), self._manifest(step))
    for path in self._manifests.glob('*.json'):
      if path.stem not in map(str, steps):
        path.unlink()

  def _check_complete(self, step: int) -> None:
    """Raises StorageError for a step that Orbax could not restore: no manifest may vouch for it."""
    if part := layout.missing_part(self.directory / str(step)):
      problem, remedy = f'was saved without {part}', 'take a --workdir with a plainer path'
      raise errors.StorageError('checkpoint', self.path(step), problem, remedy)
