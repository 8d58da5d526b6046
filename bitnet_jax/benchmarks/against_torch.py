"""The same network, weights and batch in a process that runs PyTorch."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from typing import Any

import jax
import ml_collections
import numpy as np

from bitnet_jax import errors
from bitnet_jax.models import bitnet, resnet

Tree = Any

_STAGES = {'bitnet26': bitnet.BITNET26_STAGES, 'bitnet34': bitnet.BITNET34_STAGES}
_BLOCKS = {'resnet18b': resnet.RESNET18_BLOCKS, 'resnet34b': resnet.RESNET34_BLOCKS}
_CIFAR_KINDS = {'bitnet': 'bit', 'wide_resnet': 'residual', 'plainnet': 'plain'}


def network_spec(model: ml_collections.ConfigDict, num_classes: int) -> dict[str, Any]:
  """Describes a network to `torch_networks.Network`.

  Args:
    model: the configuration's section.
    num_classes: logits.
  """
  if model.name in _CIFAR_KINDS:
    kind = _CIFAR_KINDS[model.name]
    stages = [
      [(16 * model.width * 2**stage, model.tree_depth)] * model.num_blocks for stage in range(3)
    ]
  elif model.name in _STAGES:
    kind, stages = 'bit', [list(stage) for stage in _STAGES[model.name]]
  else:
    kind = 'basic'
    stages = [
      [(int(64 * model.width_factor * 2**stage), 2)] * blocks
      for stage, blocks in enumerate(_BLOCKS[model.name])
    ]
  blocks = [
    (f'stage{s}_block{i}', kind, features, depth, 2 if s > 1 and i == 1 else 1)
    for s, stage in enumerate(stages, start=1)
    for i, (features, depth) in enumerate(stage, start=1)
  ]
  large = model.name not in _CIFAR_KINDS
  return {
    'blocks': blocks,
    'stem': (64, 7) if large else (16, 3),
    'stem_norm': kind in ('bit', 'basic'),
    'final_norm': kind in ('residual', 'plain'),
    'channels': 3,
    'classes': num_classes,
  }


def torch_arrays(variables: Tree) -> dict[str, np.ndarray]:
  """Parameters and statistics by PyTorch's names and in its layout."""
  norm = {'scale': 'weight', 'mean': 'running_mean', 'var': 'running_var'}
  arrays = {}
  flat, _ = jax.tree_util.tree_flatten_with_path(variables)
  for path, leaf in flat:
    _, *modules, name = (key.key for key in path)
    value = np.asarray(leaf)
    if name == 'kernel':
      name, value = 'weight', value.T if value.ndim == 2 else value.transpose(3, 2, 0, 1)
    arrays['.'.join([*modules, norm.get(name, name)])] = np.ascontiguousarray(value)
  return arrays


class TorchProcess:
  """A live process that runs PyTorch; a context manager.

  Args:
    python: interpreter that has PyTorch; '' for this one.
    folder: for the arrays that are handed over.

  Raises:
    ConfigError: that interpreter does not run PyTorch.
  """

  def __init__(self, python: str, folder: str) -> None:
    self._folder = pathlib.Path(folder)
    worker = pathlib.Path(__file__).with_name('torch_worker.py')
    self._python = python or sys.executable
    # `-E -s`: what this process was started with is not for the other interpreter.
    command = [self._python, '-E', '-s', str(worker)]
    try:
      self._process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
      )
    except OSError as error:
      raise self._fault(str(error)) from None

  def _fault(self, problem: str) -> errors.ConfigError:
    remedy = 'give --torch_python=PATH of a Python with PyTorch (pip install torch)'
    return errors.ConfigError('torch_python', self._python, problem, remedy)

  def __enter__(self) -> TorchProcess:
    return self

  def __exit__(self, *_: object) -> None:
    self._process.kill()
    self._process.communicate()

  def ask(self, what: str, **request: Any) -> Any:
    """The answer to a request, see `torch_worker`."""
    assert self._process.stdin and self._process.stdout
    try:
      self._process.stdin.write(json.dumps({'what': what, **request}) + '\n')
      self._process.stdin.flush()
    except BrokenPipeError:
      raise self._fault('it does not run PyTorch') from None
    line = self._process.stdout.readline()
    if not line:
      raise self._fault(f'its process ended at the request {what!r}')
    return json.loads(line)

  def build(
    self,
    config: ml_collections.ConfigDict,
    variables: Tree,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    dtype: str,
    device: str = 'cpu',
    compile_mode: str = '',
  ) -> dict[str, Any]:
    """Builds the network of a configuration with these weights; gives versions."""
    num_classes = variables['params']['head']['kernel'].shape[-1]
    path = self._folder / 'arrays.npz'
    arrays = {'images': images, 'labels': labels, **torch_arrays(variables)}
    np.savez(path, **arrays)  # type: ignore[arg-type]
    optimizer = {
      'lr': config.optim.learning_rate,
      'momentum': config.optim.momentum,
      'nesterov': config.optim.nesterov,
      'weight_decay': config.optim.weight_decay,
    }
    return self.ask(
      'build',
      spec=network_spec(config.model, num_classes),
      arrays=str(path),
      dtype=dtype,
      device=device,
      compile=compile_mode,
      optimizer=optimizer,
    )
