"""Speed of the bare training step, alone or in turns with PyTorch's."""

from __future__ import annotations

import tempfile
from typing import Any

import jax
import ml_collections
import numpy as np

from bitnet_jax import errors
from bitnet_jax.benchmarks import against_torch, matrix, timing
from bitnet_jax.benchmarks.network import Case

# Between two float32 computations of one function: of the logits' largest value; and of each
# gradient's norm, where a few ReLUs near zero open on one side alone.
_LOGITS, _GRADIENTS = 1e-3, 5e-2


def measure(
  config: ml_collections.ConfigDict,
  *,
  rounds: int,
  count: int = 1,
  against: str = '',
  torch_python: str = '',
  torch_compile: str = '',
  matrix_rate: bool = False,
) -> dict[str, Any]:
  """Times training steps.

  Args:
    config: of the network, the type and the batch.
    rounds: how often each side is timed.
    count: steps of a timing.
    against: 'torch', or '' for no comparison.
    torch_python: interpreter that has PyTorch; '' for this one.
    torch_compile: mode of torch.compile; '' for eager.
    matrix_rate: also say how the step's multiply-adds a second compare with those of large
      matrices, see `matrix.rate`.

  Returns:
    A JSON object: seconds of a step and images a second of each side, how much faster ours is, and
    how closely the two agree.

  Raises:
    ConfigError: PyTorch is not to be had, or computes something else.
  """
  case = Case(config)
  work = config.global_batch_size * count
  if not against:
    seconds = timing.in_turns({'ours': case.side(count)}, rounds)
    ours = timing.summary(seconds['ours'], work)
    return {'ours': ours, **(_of_matrix_rate(case, ours) if matrix_rate else {})}
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
    memory = torch.ask('memory')
  sums = {name: timing.summary(values, work) for name, values in seconds.items()}
  return {
    **sums,
    **(_of_matrix_rate(case, sums['ours']) if matrix_rate else {}),
    'ratio': timing.ratio(seconds['ours'], seconds['torch']),
    'agreement': agreement,
    'torch_bytes': memory,
    'versions': versions,
  }


def _of_matrix_rate(case: Case, ours: dict[str, float]) -> dict[str, Any]:
  # Forward, and the gradients of input and kernel, which are as much work each; the image's, which
  # nobody needs, is counted too.
  multiply_adds = 3 * case.multiply_adds() * ours['per_second'] / case.config.global_batch_size
  # Devices that the host plays share its cores.
  devices = 1 if jax.default_backend() == 'cpu' else jax.device_count()
  rate = matrix.rate(case.config.model.dtype) * devices
  return {'matrix': {'rate': rate, 'step': multiply_adds, 'share': multiply_adds / rate}}


def compare(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, float]:
  """How far two computations of a training step are apart.

  Raises:
    ConfigError: so far that they are of two functions.
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
