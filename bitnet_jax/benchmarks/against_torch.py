"""Runs a network with the same weights and batch in a PyTorch process, for comparisons."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import ml_collections
import numpy as np

from bitnet_jax import errors
from bitnet_jax.models import bitnet, build, resnet

Tree = Any


def network_spec(model: nn.Module) -> dict[str, Any]:
  """Returns the specification that `torch_networks.TorchNetwork` builds the same network from.

  Args:
    model: a network of `models.create_model`.
  """
  stages: Sequence[Sequence[tuple[int, int]]]
  if isinstance(model, bitnet.ImagenetBitNet):
    kind, stages = 'bit', model.stages
  elif isinstance(model, resnet.ResNetB):
    kind, width = 'basic', 64 * model.width_factor
    stages = [[(int(width * 2**s), 2)] * count for s, count in enumerate(model.stage_blocks)]
  else:
    assert isinstance(model, bitnet.CifarBitNet | resnet.WideResNet)
    kind = 'bit' if isinstance(model, bitnet.CifarBitNet) else 'residual'
    if isinstance(model, resnet.WideResNet) and not model.shortcut:
      kind = 'plain'
    width = 16 * model.width
    stages = [[(width * 2**s, model.tree_depth)] * model.num_blocks for s in range(3)]
  blocks = [
    (f'stage{s}_block{i}', kind, features, depth, 2 if s > 1 and i == 1 else 1)
    for s, stage in enumerate(stages, start=1)
    for i, (features, depth) in enumerate(stage, start=1)
  ]
  return {
    'blocks': blocks,
    'stem': (64, 7) if len(stages) == 4 else (16, 3),
    'stem_norm': kind in ('bit', 'basic'),
    'final_norm': kind in ('residual', 'plain'),
    'channels': 3,
    'classes': model.num_classes,
  }


def torch_arrays(variables: Tree) -> dict[str, np.ndarray]:
  """Returns parameters and statistics by PyTorch's names and in its layout."""
  norm = {'scale': 'weight', 'mean': 'running_mean', 'var': 'running_var'}
  arrays = {}
  for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
    _, *modules, name = (key.key for key in path)
    value = np.asarray(leaf)
    if name == 'kernel':
      name, value = 'weight', value.T if value.ndim == 2 else value.transpose(3, 2, 0, 1)
    arrays['.'.join([*modules, norm.get(name, name)])] = np.ascontiguousarray(value)
  return arrays


class TorchProcess:
  """Runs PyTorch in another process for as long as a `with` block lasts.

  Args:
    python: path of an interpreter that has PyTorch; '' for this one.
    folder: directory for the arrays that the process reads.

  Raises:
    ConfigError: the interpreter does not run PyTorch.
  """

  def __init__(self, python: str, folder: str) -> None:
    self._folder = pathlib.Path(folder)
    self._python = python or sys.executable
    self._stderr = self._folder / 'stderr'
    # With -E and -s the other interpreter ignores the environment that this process was given.
    worker = str(pathlib.Path(__file__).with_name('torch_worker.py'))
    command = [self._python, '-E', '-s', worker]
    try:
      with self._stderr.open('w') as stderr:
        self._process = subprocess.Popen(
          command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=stderr, text=True
        )
    except OSError as error:
      raise self._fault(str(error)) from None

  def _fault(self, problem: str) -> errors.ConfigError:
    remedy = 'give --torch_python=PATH of a Python with PyTorch (pip install torch)'
    return errors.ConfigError('torch_python', self._python, problem, remedy)

  def _ended(self, problem: str) -> errors.ConfigError:
    """Returns the fault, with the last line that the process wrote."""
    self._process.wait()
    last = self._stderr.read_text(errors='replace').strip().rpartition('\n')[2]
    return self._fault(f'{problem} ({last})' if last else problem)

  def __enter__(self) -> TorchProcess:
    return self

  def __exit__(self, *_: object) -> None:
    self._process.kill()
    self._process.communicate()

  def ask(self, what: str, **request: Any) -> Any:
    """Returns the answer to a request of `torch_worker`.

    Raises:
      ConfigError: the process ended.
    """
    assert self._process.stdin and self._process.stdout
    try:
      self._process.stdin.write(json.dumps({'what': what, **request}) + '\n')
      self._process.stdin.flush()
    except BrokenPipeError:
      raise self._ended('it does not run PyTorch') from None
    line = self._process.stdout.readline()
    if not line:
      raise self._ended(f'its process ended at the request {what!r}')
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
    """Builds the network of a configuration in the process and returns PyTorch's version.

    Args:
      config: the network and the optimizer.
      variables: 'params' and 'batch_stats'.
      images: `[batch, height, width, channels]`, float32.
      labels: `[batch]`, int32.
      dtype: type of the computation, 'float32' or 'bfloat16'.
      device: 'cpu' or 'cuda'.
      compile_mode: mode of torch.compile; '' for eager.
    """
    num_classes = variables['params']['head']['kernel'].shape[-1]
    path = self._folder / 'arrays.npz'
    arrays = {'images': images, 'labels': labels, **torch_arrays(variables)}
    np.savez(path, **arrays)  # type: ignore[arg-type]
    optim = config.optim
    return self.ask(
      'build',
      spec=network_spec(build.make_model(config, num_classes, '')),
      arrays=str(path),
      dtype=dtype,
      device=device,
      compile=compile_mode,
      optimizer={'lr': optim.learning_rate}
      | {name: optim[name] for name in ('momentum', 'nesterov', 'weight_decay')},
    )
