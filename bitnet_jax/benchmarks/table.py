"""Results of benchmarks as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

_CONDITIONS = ('processor', 'cores', 'device', 'devices', 'python', 'jax', 'onednn-cpu-gomp')


def markdown(lines: Sequence[dict[str, Any]]) -> str:
  """A table for each thing that was measured, and what it was measured on.

  Args:
    lines: as `benchmark` writes them.
  """
  parts = []
  for what in dict.fromkeys(line['what'] for line in lines):
    rows = [line for line in lines if line['what'] == what]
    parts.append(_COLUMNS[what](rows))
  seen = dict.fromkeys(
    ', '.join(f'{name} {line["conditions"][name]}' for name in _CONDITIONS) for line in lines
  )
  return '\n\n'.join([*parts, '\n'.join(seen)])


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  lines = [header, ['---'] * len(header), *rows]
  return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


def _case(line: dict[str, Any]) -> list[str]:
  return [line['network'], line['dtype'], str(line['batch'])]


def _steps(lines: Sequence[dict[str, Any]]) -> str:
  header = ['network', 'type', 'batch', 'step, ms', 'images/s', 'PyTorch', 'ratio', 'middle half']
  with_rate = any('matrix' in line['result'] for line in lines)
  header += ['of matrix rate'] if with_rate else []
  rows = []
  for line in lines:
    result = line['result']
    ours = result['ours']
    row = [f'{1e3 * line["batch"] / ours["per_second"]:.0f}', f'{ours["per_second"]:.1f}']
    if 'torch' in result:
      ratio = result['ratio']
      row += [f'{result["torch"]["per_second"]:.1f}', f'{ratio["median"]:.2f}']
      row += [f'{ratio["low"]:.2f} to {ratio["high"]:.2f}']
    else:
      row += ['-'] * 3
    if with_rate:
      row.append(f'{result["matrix"]["share"]:.0%}' if 'matrix' in result else '-')
    rows.append([*_case(line), *row])
  return _table(header, rows)


def _inference(lines: Sequence[dict[str, Any]]) -> str:
  header = ['network', 'type', 'batch', 'ms', 'images/s', 'PyTorch', 'onnxruntime', 'ratio']
  rows = []
  for line in lines:
    result = line['result']
    ours = result['ours']['per_second']
    others = [result.get(name, {}).get('per_second') for name in ('torch', 'onnxruntime')]
    row = [f'{1e3 * line["batch"] / ours:.1f}', f'{ours:.0f}']
    row += [f'{other:.0f}' if other else '-' for other in others]
    rows.append([*_case(line), *row, f'{result["ratio"]["median"]:.2f}' if any(others) else '-'])
  return _table(header, rows)


def _loop(lines: Sequence[dict[str, Any]]) -> str:
  header = ['network', 'type', 'batch', 'loop, images/s', 'bare steps, images/s', 'share']
  rows = []
  for line in lines:
    result = line['result']
    speeds = [f'{result[name]["per_second"]:.1f}' for name in ('loop', 'bare')]
    rows.append([*_case(line), *speeds, f'{result["share"]["whole"]:.1%}'])
  return _table(header, rows)


def _compile(lines: Sequence[dict[str, Any]]) -> str:
  parts = ('total', 'import', 'prepare', 'first step', 'later step')
  header = ['network', 'type', 'batch', 'programs', *(f'{part}, s' for part in parts)]
  rows = [
    [*_case(line), name, *(f'{line["result"][name][part]:.1f}' for part in parts)]
    for line in lines
    for name in ('cold', 'warm')
  ]
  return _table(header, rows)


def _memory(lines: Sequence[dict[str, Any]]) -> str:
  parts = ('arguments', 'temporary', 'peak', 'resident')
  header = ['network', 'type', 'batch', *(f'{part}, MB' for part in parts)]

  def megabytes(size: int | None) -> str:
    return '-' if size is None else f'{size / 1e6:.0f}'

  rows = [[*_case(line), *(megabytes(line['result'][part]) for part in parts)] for line in lines]
  return _table(header, rows)


def _scaling(lines: Sequence[dict[str, Any]]) -> str:
  header = [
    'network',
    'type',
    'what differs',
    'value',
    'multiply-adds, G',
    'least step, ms',
    'G a second',
  ]
  parts = []
  for line in lines:
    rows = []
    for case in line['result']['cases']:
      work, time = case['multiply_adds'] / 1e9, case['least']
      row = [case['field'], str(case['value']), f'{work:.2f}', f'{1e3 * time:.0f}']
      # Forward, and the gradients of input and kernel, which are as much work each.
      rows.append([line['network'], line['dtype'], *row, f'{3 * work / time:.0f}'])
    parts.append(_table(header, rows))
    layouts = [
      [str(layout['processes']), str(layout['devices']), f'{1e3 * layout["least"]:.0f}']
      for layout in line['result']['layouts']
    ]
    parts.append(_table(['processes', 'devices of each', 'least step, ms'], layouts))
    dispatch = line['result']['dispatch']
    parts.append(
      f'A call by pmap takes {1e6 * dispatch["pmap"]:.0f} microseconds, '
      f'by jit {1e6 * dispatch["jit"]:.0f}.'
    )
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


_COLUMNS = {
  'step': _steps,
  'infer': _inference,
  'loop': _loop,
  'compile': _compile,
  'memory': _memory,
  'input': _input,
  'scaling': _scaling,
}
