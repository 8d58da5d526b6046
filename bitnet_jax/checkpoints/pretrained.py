"""Loads a trained network from the work directory of its run."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
import orbax.checkpoint as ocp

from bitnet_jax import errors
from bitnet_jax.checkpoints import layout, quarantine
from bitnet_jax.checkpoints.orbax_options import primary_options
from bitnet_jax.config import defaults

Tree = Any

HEAD = 'head'  # The layer that knows the classes.


@dataclasses.dataclass(frozen=True)
class Trained:
  """Holds what is needed to use a network.

  Attributes:
    config: of the run.
    class_names: in the order of the logits.
    step: steps taken.
    variables: 'params' and 'batch_stats', NumPy arrays.
    image_shape: (height, width, channels) of what it was trained on.
    passed_over: what is wrong with newer steps, by step.
  """

  config: ml_collections.ConfigDict
  class_names: tuple[str, ...]
  step: int
  variables: Tree
  image_shape: tuple[int, int, int]
  passed_over: Mapping[int, str] = dataclasses.field(default_factory=dict)


def load(workdir: str, step: int = 0) -> Trained:
  """Loads a checkpoint of a run, verified, and disturbs nothing if the run still goes on.

  Args:
    workdir: of the run.
    step: of the checkpoint; 0 for the newest that is whole.

  Raises:
    CheckpointError: no such run or step, or it cannot be read.
  """
  folder = pathlib.Path(workdir).absolute()
  chosen, passed_over = _choose(folder, workdir, step)
  for passed, fault in passed_over.items():
    quarantine.warn_of_older(passed, fault, chosen)
  return dataclasses.replace(_restore(folder, chosen), passed_over=passed_over)


def _choose(folder: pathlib.Path, workdir: str, step: int) -> tuple[int, dict[int, str]]:
  """Returns the step to take, and what is wrong with the newer ones."""
  steps, listed = layout.list_steps(folder)
  if not steps:
    remedy = 'name the work directory of a run that has saved a checkpoint'
    raise errors.CheckpointError('workdir', workdir, 'holds no checkpoints', remedy)
  if step and step not in steps:
    choice = ', '.join(map(str, reversed(steps)))
    problem, remedy = f'not saved in {workdir}', f'choose from {choice}'
    raise errors.CheckpointError('step', step, problem, remedy)
  passed_over = (
    {}
    if step
    else dict.fromkeys(reversed(quarantine.missing_steps(steps, listed)), quarantine.MISSING)
  )
  for candidate in [step] if step else reversed(steps):
    fault = quarantine.find_fault(folder, candidate)
    if not fault:
      return candidate, passed_over
    passed_over[candidate] = fault
  raise errors.CheckpointError('checkpoint', candidate, fault, 'choose another step or run')


def _restore(folder: pathlib.Path, step: int) -> Trained:
  items = folder / 'checkpoints' / str(step)
  try:
    options = primary_options()
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
  config, data = config_from_json(run['config']), run['data']
  return Trained(
    config,
    tuple(data['class_names']),
    step,
    jax.tree.map(np.asarray, variables),
    _image_shape(folder, data),
  )


def _image_shape(folder: pathlib.Path, data: dict[str, Any]) -> tuple[int, int, int]:
  """Returns (height, width, channels); records of an older version left it to `run.json`."""
  shape = data.get('image_shape') or read_run(str(folder))['derived']['image_shape']
  height, width, channels = shape
  return height, width, channels


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
  """Loads what `config.init_from` names, `WORKDIR` or `WORKDIR/checkpoints/STEP`.

  Raises:
    CheckpointError: as `load`, under that field's name; also where the newest step of WORKDIR is
      not whole. What a run began with must not depend on what had happened to a disk: its
      configuration names the step, or there is no doubt which it is.
  """
  folder = pathlib.Path(path).absolute()
  step = 0
  if folder.parent.name == layout.CHECKPOINTS and folder.name.isdecimal():
    folder, step = folder.parents[1], int(folder.name)
  try:
    chosen, passed_over = _choose(folder, str(folder), step)
    for passed, fault in passed_over.items():
      remedy = f'name the step to start from: {folder}/{layout.CHECKPOINTS}/{chosen}'
      raise errors.CheckpointError('step', passed, fault, remedy)
    return _restore(folder, chosen)
  except errors.CheckpointError as error:
    own = error.field == 'workdir'
    renamed = error.named if own else error.inside
    raise renamed('config.init_from', path) from error


def config_from_json(tree: dict[str, Any]) -> ml_collections.ConfigDict:
  """Returns a configuration from its JSON form; fields that are newer have their defaults.

  Raises:
    CheckpointError: it has a field that is not known, or a value out of range.
  """
  config = defaults.default_config()
  fields = dict(defaults.flatten(config))
  for name, value in defaults.flatten(tree):
    if name not in fields:
      remedy = 'use the version of bitnet_jax that wrote it'
      raise errors.CheckpointError(f'config.{name}', value, 'unknown field', remedy)
    *sections, leaf = name.split('.')
    node = config
    for section in sections:
      node = node[section]
    node[leaf] = tuple(value) if isinstance(value, list) else value
  return config


def read_run(workdir: str) -> dict[str, Any]:
  """Returns what a run wrote about itself, see `run_info.write_run`.

  Raises:
    CheckpointError: the file is missing or damaged.
  """
  path = pathlib.Path(workdir) / 'run.json'
  try:
    return json.loads(path.read_text())
  except (OSError, ValueError) as error:
    remedy = 'restore it, or run the training command again, which writes it'
    raise errors.CheckpointError('file', path, f'cannot be read ({error})', remedy) from error
