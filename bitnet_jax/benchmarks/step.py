"""Measures the speed of the bare training step, alone or in turns with PyTorch's."""

from __future__ import annotations

import tempfile
from typing import Any

import jax
import ml_collections
import numpy as np

from bitnet_jax import errors
from bitnet_jax.benchmarks import against_torch, timing
from bitnet_jax.benchmarks.network import Case

# Largest differences of two float32 computations of one function: of the logits, over their largest
# value; of each gradient's norm, over the largest norm, as a few ReLUs near zero open on one side.
_LOGITS, _GRADIENTS = 1e-3, 5e-2


def measure(
  config: ml_collections.ConfigDict,
  *,
  rounds: int,
  count: int = 1,
  against: str = '',
  torch_python: str = '',
  torch_compile: str = '',
) -> dict[str, Any]:
  """Times training steps.

  Args:
    config: the network, its type and the batch.
    rounds: how often each side is timed.
    count: steps of a timing.
    against: 'torch', or '' for no comparison.
    torch_python: path of an interpreter that has PyTorch; '' for this one.
    torch_compile: mode of torch.compile; '' for eager.

  Returns:
    A JSON object: seconds of a step and images/second of each side, how much faster ours is, and
    how closely the two agree.

  Raises:
    ConfigError: PyTorch does not run, or computes something else.
  """
  case = Case(config)
  work = config.global_batch_size * count
  if not against:
    seconds = timing.in_turns({'ours': case.side(count)}, rounds)
    return {'ours': timing.summary(seconds['ours'], work)}
  with (
    tempfile.TemporaryDirectory() as folder,
    against_torch.TorchProcess(torch_python, folder) as torch,
  ):
    device = 'cuda' if jax.default_backend() == 'gpu' else 'cpu'
    arrays = (config, case.variables, case.images, case.labels)
    versions = torch.build(*arrays, dtype='float32', device=device)
    agreement = compare(case.check(), torch.ask('check'))
    torch.build(*arrays, dtype=config.model.dtype, device=device, compile_mode=torch_compile)
    sides = {'ours': case.side(count), 'torch': lambda: torch.ask('step', count=count)}
    seconds = timing.in_turns(sides, rounds)
    torch_bytes = torch.ask('memory')
  return {
    **{name: timing.summary(values, work) for name, values in seconds.items()},
    'ratio': timing.ratio(seconds['ours'], seconds['torch']),
    'agreement': agreement,
    'torch_bytes': torch_bytes,
    'versions': versions,
  }


def compare(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, float]:
  """Returns how far two computations of a training step are apart, as fractions.

  Args:
    ours: logits, loss and gradients of `Case.check`.
    theirs: logits, loss and norms of the gradients, by PyTorch's names.

  Raises:
    ConfigError: the two are too far apart to compute the same function.
  """
  logits = np.asarray(theirs['logits'])
  norms = {
    name: float(np.linalg.norm(value))
    for name, value in against_torch.torch_arrays({'params': ours['gradients']}).items()
  }
  if norms.keys() != theirs['gradients'].keys():
    odd = sorted(norms.keys() ^ theirs['gradients'].keys())
    raise errors.ConfigError('against', 'torch', f'parameters differ: {odd[0]}', 'report this')
  largest = max(theirs['gradients'].values())
  agreement = {
    'logits': float(np.abs(ours['logits'] - logits).max() / np.abs(logits).max()),
    'loss': abs(ours['loss'] - theirs['loss']) / theirs['loss'],
    'gradients': max(abs(norms[k] - v) / largest for k, v in theirs['gradients'].items()),
  }
  if agreement['logits'] > _LOGITS or agreement['gradients'] > _GRADIENTS:
    raise errors.ConfigError(
      'against', 'torch', f'computes something else: {agreement}', 'report this'
    )
  return agreement
