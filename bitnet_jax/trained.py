"""A trained network, as the run that made it left it in its work directory."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp

from bitnet_jax import config as config_lib
from bitnet_jax import errors, manifest
from bitnet_jax.checkpoint import options_of_first

Tree = Any

HEAD = 'head'  # The layer that knows the classes.


@dataclasses.dataclass(frozen=True)
class Trained:
  """What is needed to use a network.

  Attributes:
    config: of the run.
    class_names: in the order of the logits.
    step: steps taken.
    variables: 'params' and 'batch_stats', NumPy arrays.
  """

  config: ml_collections.ConfigDict
  class_names: tuple[str, ...]
  step: int
  variables: Tree


def load(workdir: str, step: int = 0) -> Trained:
  """Loads a checkpoint of a run, verified, and disturbs nothing if the run still goes on.

  Args:
    workdir: of the run.
    step: of the checkpoint; 0 for the newest that is whole.

  Raises:
    CheckpointError: no such run or step, or it cannot be read.
  """
  folder = pathlib.Path(workdir).absolute()
  steps = sorted(
    (int(path.name) for path in (folder / 'checkpoints').glob('*') if path.name.isdecimal()),
    reverse=True,
  )
  if not steps:
    remedy = 'name the --workdir of a run that has saved a checkpoint'
    raise errors.CheckpointError('workdir', workdir, 'holds no checkpoints', remedy)
  if step and step not in steps:
    problem, remedy = f'not saved in {workdir}', f'choose from {", ".join(map(str, steps))}'
    raise errors.CheckpointError('step', step, problem, remedy)
  for candidate in [step] if step else steps:
    fault = _fault(folder, candidate)
    if not fault:
      return _restore(folder, candidate)
  raise errors.CheckpointError('checkpoint', candidate, fault, 'choose another step or run')


def _fault(folder: pathlib.Path, step: int) -> str:
  return manifest.problem(folder / 'checkpoints' / str(step), folder / 'manifests' / f'{step}.json')


def _restore(folder: pathlib.Path, step: int) -> Trained:
  items = folder / 'checkpoints' / str(step)
  try:
    options = options_of_first()
    with ocp.Checkpointer(
      ocp.JsonCheckpointHandler(multiprocessing_options=options), multiprocessing_options=options
    ) as checkpointer:
      run = checkpointer.restore(items / 'record')['run']
    with ocp.StandardCheckpointer(multiprocessing_options=options) as checkpointer:
      state = checkpointer.restore(items / 'state')
  except Exception as error:  # Orbax raises bare Exception for damaged files.
    problem = next(iter(str(error).splitlines()), type(error).__name__)
    raise errors.CheckpointError('checkpoint', step, problem, 'choose another step') from error
  variables = {name: state[name] or {} for name in ('params', 'batch_stats')}
  class_names = tuple(read_run(str(folder))['derived']['class_names'])
  config = config_from_json(run['config'])
  return Trained(config, class_names, step, jax.tree.map(np.asarray, variables))


def transplant(params: Tree, batch_stats: Tree, init_from: str) -> tuple[Tree, Tree]:
  """Takes all but the head from a trained network.

  Args:
    params: of a new network.
    batch_stats: of a new network.
    init_from: see `load_from`.

  Returns:
    Parameters and running averages: the trained ones, and the new head.

  Raises:
    CheckpointError: there is none, or its network has other sizes.
  """
  old = load_from(init_from).variables
  for name, new in (('params', params), ('batch_stats', batch_stats)):
    stored, wanted = _shapes(old[name]), _shapes(new)
    for key in [*wanted, *stored]:
      if stored.get(key) != wanted.get(key):
        problem = f'has {key} {stored.get(key, "absent")}, the new one {wanted.get(key, "absent")}'
        remedy = "take that run's config.model"
        raise errors.CheckpointError('config.init_from', init_from, problem, remedy)
  return {**old['params'], HEAD: params[HEAD]}, old['batch_stats']


def _shapes(tree: Tree) -> dict[str, tuple[int, ...]]:
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): np.shape(leaf)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    if path[0].key != HEAD
  }


def load_from(path: str) -> Trained:
  """Loads `WORKDIR`, or `WORKDIR/checkpoints/STEP`; see `load`."""
  folder = pathlib.Path(path)
  if folder.parent.name == 'checkpoints' and folder.name.isdecimal():
    return load(str(folder.parent.parent), int(folder.name))
  return load(path)


def config_from_json(tree: dict[str, Any]) -> ml_collections.ConfigDict:
  """A configuration from its JSON form; fields that are new since then have their defaults.

  Raises:
    CheckpointError: it has a field that is not known, or a value out of range.
  """
  config = config_lib.default_config()
  known = dict(config_lib.flatten(config))
  for name, value in config_lib.flatten(tree):
    if name not in known:
      remedy = 'use the version of bitnet_jax that wrote it'
      raise errors.CheckpointError(f'config.{name}', value, 'unknown field', remedy)
    *sections, leaf = name.split('.')
    node = config
    for section in sections:
      node = node[section]
    node[leaf] = tuple(value) if isinstance(value, list) else value
  return config


def read_run(workdir: str) -> dict[str, Any]:
  """What a run wrote down about itself; see `records.write_run`.

  Raises:
    CheckpointError: the file is missing or damaged.
  """
  path = pathlib.Path(workdir) / 'run.json'
  try:
    return json.loads(path.read_text())
  except (OSError, ValueError) as error:
    remedy = 'restore it, or run the training command again, which writes it'
    raise errors.CheckpointError('file', path, f'cannot be read ({error})', remedy) from error
