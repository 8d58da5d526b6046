"""Measures speed and memory of the networks for whoever tunes or compares them.

python -m bitnet_jax.benchmark --what=step --config=configs/cifar10_bitnet.py:4,3,4
  [--config.model.dtype=bfloat16] [--config.global_batch_size=64]
  [--against=torch [--torch_python=PYTHON] [--torch_compile=max-autotune]] [--json=FILE]
python -m bitnet_jax.benchmark --what=input [--images=FOLDER_OR_TAR] [--json=FILE]

`--what` names what is measured: `step`, the bare training step; `infer`, the network applied to a
batch; `loop`, the whole of a training run beside its bare steps; `compile`, from the start of a
process to its first step; `memory`, of a training step; `scaling`, how the time of a step grows
with the network, the batch, the image and the devices; `input`, from encoded images to batches.
Each prints a table; `--json` adds a line to a file, `--table=FILE` prints such a file,
`--figure=FILE` draws the scaling.
"""

from __future__ import annotations

import json
import pathlib
from typing import Any

from absl import flags
from ml_collections import config_flags

from bitnet_jax import errors
from bitnet_jax.config import validation
from bitnet_jax.config.networks import NETWORKS
from bitnet_jax.runtime import cli, path_flags

_WHATS = ['step', 'infer', 'loop', 'compile', 'memory', 'scaling', 'input']
_WHAT = flags.DEFINE_enum('what', 'step', _WHATS, 'What to measure.')
_CONFIG = config_flags.DEFINE_config_file('config', None, 'File of the configuration.')
_AGAINST = flags.DEFINE_enum('against', '', ['', 'torch'], 'What to take turns with.')
_TORCH_PYTHON = path_flags.define(
  'torch_python', '', 'Python interpreter that has PyTorch; empty: this one.'
)
_TORCH_COMPILE = flags.DEFINE_string(
  'torch_compile', '', "PyTorch's compiler, by mode, as max-autotune; empty: eager."
)
_ROUNDS = flags.DEFINE_integer('rounds', 15, 'How often each side is timed.', lower_bound=3)
_COUNT = flags.DEFINE_integer('count', 1, 'Steps of one timing.', lower_bound=1)
_JSON = path_flags.define('json', '', 'File that a line with the result is added to.')
_TABLE = path_flags.define('table', '', 'File of such lines to print; nothing is measured.')
_FIGURE = path_flags.define('figure', '', 'PNG or SVG file for the figure of the scaling.')
_IMAGES = path_flags.define(
  'images', '', 'Folder or tar archive of JPEG files; empty: photographs made of noise.'
)


def main(argv: list[str]) -> None:
  """Measures what the flags name and prints the result."""
  del argv
  from bitnet_jax.benchmarks import table, timing  # They load JAX, which `--help` does without.

  if _TABLE.value:
    text = pathlib.Path(_TABLE.value).read_text(encoding='utf-8')
    print(table.markdown([json.loads(line) for line in text.splitlines()]))
    return
  line: dict[str, Any] = {'what': _WHAT.value}
  if _WHAT.value == 'input':
    from bitnet_jax.benchmarks import input as input_benchmark

    line['result'] = input_benchmark.run(_IMAGES.value)
  else:
    if not _CONFIG.value:
      raise errors.ConfigError('config', '', 'required', 'give --config=configs/NAME.py')
    validation.validate(_CONFIG.value)
    line |= {**_describe(_CONFIG.value), 'result': _measure(_CONFIG.value)}
  line['conditions'] = timing.conditions()
  print(table.markdown([line]))
  if _JSON.value:
    with open(_JSON.value, 'a', encoding='utf-8') as file:
      file.write(json.dumps(line) + '\n')
  if _FIGURE.value and _WHAT.value == 'scaling':
    from bitnet_jax.benchmarks import scaling_figure

    scaling_figure.draw(line, _FIGURE.value)


def _measure(config: Any) -> dict[str, Any]:
  """Runs a benchmark and imports no other, whose modules would count as memory."""
  what, rounds, count = _WHAT.value, _ROUNDS.value, _COUNT.value
  if what == 'compile':
    from bitnet_jax.benchmarks import startup

    try:
      return startup.measure(config, rounds=3)
    except RuntimeError:
      _check_devices(config)  # Only now: the check takes the devices that the new process needs.
      raise
  other = {'against': _AGAINST.value, 'torch_python': _TORCH_PYTHON.value}
  if what == 'infer':  # A network in use has no batch norm groups that must fit the devices.
    from bitnet_jax.benchmarks import infer

    return infer.measure(config, rounds=rounds, count=count, **other)
  _check_devices(config)
  if what == 'loop':
    from bitnet_jax.benchmarks import training_run

    return training_run.measure(config, rounds=rounds)
  if what == 'memory':
    from bitnet_jax.benchmarks import memory

    return memory.measure(config)
  if what == 'scaling':
    from bitnet_jax.benchmarks import scaling

    return scaling.measure(config, rounds=rounds)
  from bitnet_jax.benchmarks import step

  return step.measure(
    config, rounds=rounds, count=count, torch_compile=_TORCH_COMPILE.value, **other
  )


def _check_devices(config: Any) -> None:
  import jax

  validation.validate_devices(config, jax.device_count())


def _describe(config: Any) -> dict[str, Any]:
  from bitnet_jax.data import pipeline
  from bitnet_jax.training import plan

  model = config.model
  sizes = [model.width, model.tree_depth, model.num_blocks]
  small = NETWORKS[model.name].is_cifar
  return {
    'network': f'{model.name} {",".join(map(str, sizes))}' if small else model.name,
    'dtype': model.dtype,
    'batch': config.global_batch_size,
    'steps_per_execution': plan.steps_per_execution(config, pipeline.is_resident(config)),
    'against': _AGAINST.value,
  }


if __name__ == '__main__':
  cli.run(main)
