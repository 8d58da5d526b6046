"""Records what a run is: its configuration, code, packages, devices and size."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform
import subprocess
from typing import Any

import jax
import ml_collections
import numpy as np

from bitnet_jax.config import defaults
from bitnet_jax.runtime import files, host

PACKAGES = (
  'grain',
  'opencv-python-headless',
  'simplejpeg',
  'pillow',
  'jax',
  'jaxlib',
  'flax',
  'optax',
  'orbax-checkpoint',
  'tensorflow-datasets',
  'numpy',
  'onednn-cpu-gomp',
)

# Settings of JAX that decide about bits, or about the numbers that are drawn.
SETTINGS = (
  'jax_default_prng_impl',
  'jax_threefry_partitionable',
  'jax_default_matmul_precision',
  'jax_enable_x64',
  'jax_random_seed_offset',
)
# Flags of XLA that are about something else: the number of devices is recorded as such, and where
# programs are written to is nobody's business.
_NO_MATTER = ('--xla_force_host_platform_device_count', '--xla_dump')


def _version(package: str) -> str:
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return 'none'


def git_commit() -> str:
  """Returns the commit of the code, with '+changes' if the tree differs; 'unknown' outside git."""
  folder = pathlib.Path(__file__).parent

  def git(*arguments: str) -> str:
    command = ['git', '-C', str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout

  try:
    changed = git('status', '--porcelain', '--untracked-files=no').strip()
    return git('rev-parse', 'HEAD').strip() + ('+changes' if changed else '')
  except (OSError, subprocess.SubprocessError):
    return 'unknown'


def settings() -> dict[str, Any]:
  """Returns the settings of JAX and XLA, from the program or from environment variables."""
  flags = (flag for flag in os.environ.get('XLA_FLAGS', '').split())
  kept = sorted(flag for flag in flags if not flag.startswith(_NO_MATTER))
  values = {name: getattr(jax.config, name, None) for name in SETTINGS}
  return {**values, 'XLA_FLAGS': ' '.join(kept)}


def environment() -> dict[str, Any]:
  """Returns code, packages, Python, settings and devices of this process, as a JSON object."""
  devices = jax.devices()
  return {
    'commit': git_commit(),
    'python': platform.python_version(),
    'packages': {name: _version(name) for name in PACKAGES},
    'settings': settings(),
    'platform': devices[0].platform,
    'device_kind': devices[0].device_kind,
    'num_devices': len(devices),
    'cores': host.available_cores() if devices[0].platform == 'cpu' else 0,
    'num_processes': jax.process_count(),
  }


def write_run(workdir: str, config: ml_collections.ConfigDict, run: dict[str, Any]) -> None:
  """Writes `config.json`, and `run.json` with the environment and what follows from the config."""
  folder = pathlib.Path(workdir)
  files.write_json(folder / 'config.json', config.to_dict())
  files.write_json(folder / 'run.json', run)


def describe_run(
  config: ml_collections.ConfigDict,
  workdir: str,
  plan: Any,
  params: Any,
  feed: Any,
  environment: dict[str, Any],
) -> None:
  """Prints the configuration and the parameters, and writes the run's files."""
  derived = {
    'steps_per_epoch': plan.steps_per_epoch,
    'total_steps': plan.total_steps,
    'device_batch_size': config.global_batch_size // jax.device_count(),
    'num_train_examples': feed.num_examples,
    'class_names': feed.class_names,
    'image_shape': feed.image_shape,
    'parameters': sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params)),
  }
  write_run(workdir, config, {**environment, 'derived': derived})
  for name, value in defaults.flatten(config):
    print(f'config.{name}={value}')
  print(parameter_table(params))
  print(
    f'{feed.num_examples} training images, {plan.steps_per_epoch} steps an epoch, '
    f'{plan.total_steps} steps on {jax.device_count()} {jax.devices()[0].platform} device(s)',
    flush=True,
  )


def parameter_table(params: Any) -> str:
  """Returns a line for each block with its kernels' shapes and its parameters, then the total."""
  lines = []
  for name, subtree in params.items():
    leaves = jax.tree.leaves(subtree)
    kernels = [leaf for leaf in leaves if leaf.ndim > 1]
    shapes = ' '.join('x'.join(map(str, kernel.shape)) for kernel in kernels)
    lines.append(f'{name:<18}{_count(leaves):>12,}  {shapes}')
  lines.append(f'{"parameters":<18}{_count(jax.tree.leaves(params)):>12,}')
  return '\n'.join(lines)


def _count(leaves: list[Any]) -> int:
  return sum(int(np.prod(leaf.shape)) for leaf in leaves)
