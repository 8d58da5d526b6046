"""What a run writes down: its configuration, code, packages, devices and size; files and tables."""

from __future__ import annotations

import csv
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

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


def _version(package: str) -> str:
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return 'none'


def git_commit() -> str:
  """The commit of the code, with '+changes' where the work tree differs; 'unknown' outside git."""
  folder = pathlib.Path(__file__).parent

  def git(*arguments: str) -> str:
    command = ['git', '-C', str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout

  try:
    changed = git('status', '--porcelain', '--untracked-files=no').strip()
    return git('rev-parse', 'HEAD').strip() + ('+changes' if changed else '')
  except (OSError, subprocess.SubprocessError):
    return 'unknown'


def environment() -> dict[str, Any]:
  """Code, packages, Python and devices of this process, as a JSON object."""
  devices = jax.devices()
  return {
    'commit': git_commit(),
    'python': platform.python_version(),
    'packages': {name: _version(name) for name in PACKAGES},
    'platform': devices[0].platform,
    'device_kind': devices[0].device_kind,
    'num_devices': len(devices),
    'num_processes': jax.process_count(),
  }


def write_json(path: str | os.PathLike[str], value: Any) -> None:
  """Writes JSON so that a reader sees the old file or the new one, never half of one."""
  path = pathlib.Path(path)
  temporary = path.with_name(f'.{path.name}.tmp')
  temporary.write_text(json.dumps(value, indent=2, default=list) + '\n')
  os.replace(temporary, path)


def write_csv(
  path: str | os.PathLike[str], header: Sequence[str], rows: Iterable[Sequence[Any]]
) -> None:
  """Writes a table, a line for its header and one for each row."""
  with open(path, 'w', newline='', encoding='utf-8') as file:
    writer = csv.writer(file)
    writer.writerow(header)
    writer.writerows(rows)


def write_run(workdir: str, config: ml_collections.ConfigDict, run: dict[str, Any]) -> None:
  """Writes `config.json`, and `run.json` with the environment and what follows from the config."""
  folder = pathlib.Path(workdir)
  write_json(folder / 'config.json', config.to_dict())
  write_json(folder / 'run.json', run)


def parameter_table(params: Any) -> str:
  """A line for each block: its layers' shapes and its number of parameters; then the total."""
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
