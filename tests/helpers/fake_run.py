"""A run that was never trained, for tests of what uses trained networks."""

import numpy as np

from bitnet_jax.checkpoints.manager import Checkpoints
from bitnet_jax.config import defaults
from bitnet_jax.data import splits
from bitnet_jax.data.datasets import sources
from bitnet_jax.distributed import devices
from bitnet_jax.logs import run_info
from bitnet_jax.models import build
from bitnet_jax.training import resume, setup, steps
from bitnet_jax.training.plan import make_plan


def make_config(data_dir, **overrides):
  """A tiny BitNet on the handwritten digits."""
  made = defaults.default_config()
  made.model.width, made.model.tree_depth, made.model.num_blocks = 1, 2, 1
  made.model.batch_norm_group = 0
  made.data.name, made.data.dir = 'digits', data_dir
  made.data.mean, made.data.std = (77.9,), (95.7,)
  made.augment.pad = 1
  made.global_batch_size, made.eval.batch_size = 64, 40
  made.update_from_flattened_dict(overrides)
  return made


def make_run(workdir, made, seeds=(0,)):
  """Saves networks drawn from the seeds as steps 1, 2, ... of a run; returns their states."""
  source = sources.open_source(made.data.name, made.data.train_split, made.data.dir)
  plan = make_plan(made, len(source), True)
  model = build.make_model(made, len(source.class_names), devices.AXIS)
  optimizer, _ = setup.make_optimizer(made, plan)
  derived = {'class_names': source.class_names, 'image_shape': splits.image_shape(made, source)}
  environment = run_info.environment()
  run_info.write_run(workdir, made, {**environment, 'derived': derived})
  states = []
  checkpoints = Checkpoints(workdir, keep_latest=len(seeds))
  for step, seed in enumerate(seeds, start=1):
    state = steps.create_state(model, optimizer, seed, derived['image_shape'])
    # Running averages that differ from those that every network begins with.
    state.batch_stats['stage1_block1'] = _shifted(state.batch_stats['stage1_block1'], seed)
    record = resume.make_record(made, environment, derived, resume.Progress())
    checkpoints.save(step, state, record, None)
    states.append(state)
  checkpoints.close()
  return states


def _shifted(tree, seed):
  rng = np.random.default_rng(seed)
  if isinstance(tree, dict):
    return {name: _shifted(leaf, seed) for name, leaf in tree.items()}
  return tree + rng.uniform(0, 0.5, tree.shape).astype(np.float32)
