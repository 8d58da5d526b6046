"""Writes results of benchmarks as Markdown tables, for the terminal and BENCHMARKS.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_CONDITIONS = ('processor', 'cores', 'device', 'devices', 'python', 'jax', 'onednn-cpu-gomp')
_CASE = ('network', 'type', 'batch')


def markdown(lines: Sequence[dict[str, Any]]) -> str:
  """Returns a table for each thing that was measured, then the machines and versions.

  Args:
    lines: lines that `benchmark` writes.
  """
  parts = []
  for what in dict.fromkeys(line['what'] for line in lines):
    parts.append(_TABLES[what]([line for line in lines if line['what'] == what]))
  conditions = dict.fromkeys(
    ', '.join(f'{name} {line["conditions"][name]}' for name in _CONDITIONS) for line in lines
  )
  return '\n\n'.join([*parts, '\n'.join(conditions)])


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  lines = [header, ['---'] * len(header), *rows]
  return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


def _case(line: dict[str, Any]) -> list[str]:
  return [line['network'], line['dtype'], str(line['batch'])]


def _steps(lines: Sequence[dict[str, Any]]) -> str:
  header = [*_CASE, 'step, ms', 'images/s', 'PyTorch', 'ratio', 'middle half']
  rows = []
  for line in lines:
    result = line['result']
    speed, others = result['ours']['per_second'], ['-'] * 3
    if 'torch' in result:
      ratio = result['ratio']
      others = [f'{result["torch"]["per_second"]:.1f}', f'{ratio["median"]:.2f}']
      others.append(f'{ratio["low"]:.2f} to {ratio["high"]:.2f}')
    rows.append([*_case(line), f'{1e3 * line["batch"] / speed:.0f}', f'{speed:.1f}', *others])
  return _table(header, rows)


def _inference(lines: Sequence[dict[str, Any]]) -> str:
  header = [*_CASE, 'ms', 'images/s', 'PyTorch', 'onnxruntime', 'ratio']
  rows = []
  for line in lines:
    result = line['result']
    speed = result['ours']['per_second']
    others = [
      f'{result[name]["per_second"]:.0f}' if name in result else '-'
      for name in ('torch', 'onnxruntime')
    ]
    others.append(f'{result["ratio"]["median"]:.2f}' if 'ratio' in result else '-')
    rows.append([*_case(line), f'{1e3 * line["batch"] / speed:.1f}', f'{speed:.0f}', *others])
  return _table(header, rows)


def _training_run(lines: Sequence[dict[str, Any]]) -> str:
  header = [*_CASE, 'loop, images/s', 'bare steps, images/s', 'share']
  rows = []
  for line in lines:
    result = line['result']
    speeds = [f'{result[name]["per_second"]:.1f}' for name in ('loop', 'bare')]
    rows.append([*_case(line), *speeds, f'{result["share"]["whole"]:.1%}'])
  return _table(header, rows)


def _compile(lines: Sequence[dict[str, Any]]) -> str:
  parts = ('total', 'import', 'prepare', 'first step', 'later step')
  header = [*_CASE, 'programs', *(f'{part}, s' for part in parts)]
  rows = [
    [*_case(line), name, *(f'{line["result"][name][part]:.1f}' for part in parts)]
    for line in lines
    for name in ('cold', 'warm')
  ]
  return _table(header, rows)


def _memory(lines: Sequence[dict[str, Any]]) -> str:
  parts = ('arguments', 'temporary', 'peak', 'resident')
  rows = []
  for line in lines:
    sizes = [line['result'][part] for part in parts]
    rows.append([*_case(line), *('-' if s is None else f'{s / 1e6:.0f}' for s in sizes)])
  return _table([*_CASE, *(f'{part}, MB' for part in parts)], rows)


def _scaling(lines: Sequence[dict[str, Any]]) -> str:
  header = ['network', 'type', 'what differs', 'value', 'multiply-adds, G', 'least step, ms']
  parts = []
  for line in lines:
    result, rows = line['result'], []
    for case in result['cases']:
      work, time = case['multiply_adds'] / 1e9, case['least']
      row = [case['field'], str(case['value']), f'{work:.2f}', f'{1e3 * time:.0f}']
      # The gradients of input and kernel are as much work each as the forward pass.
      rows.append([line['network'], line['dtype'], *row, f'{3 * work / time:.0f}'])
    layouts = [
      [str(layout['processes']), str(layout['devices']), f'{1e3 * layout["least"]:.0f}']
      for layout in result['layouts']
    ]
    parts += [
      _table([*header, 'G a second'], rows),
      _table(['processes', 'devices of each', 'least step, ms'], layouts),
      f'A call by pmap takes {1e6 * result["dispatch"]["pmap"]:.0f} microseconds, '
      f'by jit {1e6 * result["dispatch"]["jit"]:.0f}.',
    ]
  return '\n\n'.join(parts)


def _input(lines: Sequence[dict[str, Any]]) -> str:
  return '\n\n'.join(_input_of(line['result']) for line in lines)


def _input_of(result: dict[str, Any]) -> str:
  rates, workers = result['decoding'], result['stream']
  rows = [
    [f'{name}: decode, crop', f'{rate:,.0f}', f'{rate / rates["Pillow"]:.2f} x Pillow']
    for name, rate in rates.items()
  ]
  one = next(iter(workers.values()))['clock']
  for number, rate in workers.items():
    clock = f'{rate["clock"]:,.0f} by the clock, {rate["clock"] / one:.2f} x'
    rows.append([f'stream, {number} worker(s)', f'{rate["core"]:,.0f}', clock])
  share = rates['ours'] / result['handing_over']
  handing = ['handing over', f'{result["handing_over"]:,.0f}', f'{share:.1%} of decode and crop']
  resident = ['resident, CIFAR, augmented', f'{result["resident"]:,.0f}', '']
  return _table([result['images'], 'images/s a core', ''], [*rows, handing, resident])


_TABLES = {
  'step': _steps,
  'infer': _inference,
  'loop': _training_run,
  'compile': _compile,
  'memory': _memory,
  'input': _input,
  'scaling': _scaling,
}
