"""The benchmark command.

python -m bitnet_jax.benchmark --what=step --config=configs/cifar10_bitnet.py:4,3,4
  [--config.model.dtype=bfloat16] [--config.global_batch_size=64]
  [--against=torch [--torch_python=PYTHON] [--torch_compile=max-autotune]] [--json=FILE]
python -m bitnet_jax.benchmark --what=input [--images=FOLDER_OR_TAR] [--json=FILE]

What is measured: `step`, the bare training step; `infer`, the network applied to a batch; `loop`,
the whole of a training run beside its bare steps; `compile`, from the start of a process to its
first step; `memory`, of a training step; `scaling`, how its time grows with the network, the
batch, the image and the devices; `input`, the way of the images. Each prints a table; `--json` adds
a line to a file, `--table=FILE` prints such a file, `--figure=FILE` draws the scaling.
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
_MATRIX_RATE = flags.DEFINE_bool(
  'matrix_rate', False, 'Also compare a step with the rate of large matrix products.'
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
  """Measures what the flags name."""
  del argv
  from bitnet_jax.benchmarks import table

  if _TABLE.value:
    print(table.markdown(_read_lines(_TABLE.value)))
    return
  if _WHAT.value == 'input':
    from bitnet_jax.benchmarks import input as input_benchmark

    line: dict[str, Any] = {'what': 'input', 'result': input_benchmark.run(_IMAGES.value)}
    _finish(line)
    return
  if not _CONFIG.value:
    raise errors.ConfigError('config', '', 'required', 'give --config=configs/NAME.py')
  validation.validate(_CONFIG.value)
  _finish({'what': _WHAT.value, **_describe(_CONFIG.value), 'result': _measure(_CONFIG.value)})


def _finish(line: dict[str, Any]) -> None:
  """Adds the conditions to a result, prints it, and writes what the flags ask for."""
  from bitnet_jax.benchmarks import table, timing

  line['conditions'] = timing.conditions()
  print(table.markdown([line]))
  if _JSON.value:
    with open(_JSON.value, 'a', encoding='utf-8') as file:
      file.write(json.dumps(line) + '\n')
  if _FIGURE.value and line['what'] == 'scaling':
    from bitnet_jax.benchmarks import scaling_figure

    scaling_figure.draw(line, _FIGURE.value)


def _measure(config: Any) -> dict[str, Any]:
  # In use there are no groups; a start is checked below.
  if _WHAT.value not in ('infer', 'compile'):
    _check_devices(config)
  rounds, count = _ROUNDS.value, _COUNT.value
  other = {'against': _AGAINST.value, 'torch_python': _TORCH_PYTHON.value}
  if _WHAT.value == 'compile':
    from bitnet_jax.benchmarks import startup

    try:
      return startup.measure(config, rounds=3)
    except RuntimeError:
      _check_devices(config)  # Not before: it takes the devices, which are the new process's.
      raise
  if _WHAT.value == 'infer':
    from bitnet_jax.benchmarks import infer

    return infer.measure(config, rounds=rounds, count=count, **other)
  if _WHAT.value == 'loop':
    from bitnet_jax.benchmarks import loop

    return loop.measure(config, rounds=rounds)
  if _WHAT.value == 'memory':
    from bitnet_jax.benchmarks import memory

    return memory.measure(config)
  if _WHAT.value == 'scaling':
    from bitnet_jax.benchmarks import scaling

    return scaling.measure(config, rounds=rounds)
  from bitnet_jax.benchmarks import step

  return step.measure(
    config,
    rounds=rounds,
    count=count,
    torch_compile=_TORCH_COMPILE.value,
    matrix_rate=_MATRIX_RATE.value,
    **other,
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


def _read_lines(path: str) -> list[dict[str, Any]]:
  text = pathlib.Path(path).read_text(encoding='utf-8')
  return [json.loads(line) for line in text.splitlines()]


if __name__ == '__main__':
  cli.run(main)
