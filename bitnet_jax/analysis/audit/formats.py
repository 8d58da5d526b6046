"""The audit as a terminal's table, Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Sequence
from typing import Any

from bitnet_jax.analysis.audit import claims

Record = dict[str, Any]

TITLES = {
  2: 'Table 2: CIFAR-10 and CIFAR-100',
  3: 'Table 3: the ILSVRC12 BitNets',
  4: 'Table 4: ILSVRC12',
  5: 'Table 5: tree depth k',
  6: 'Table 6: the networks of Figure 2',
  7: 'Table 7: training errors on CIFAR-100',
}
_CELLS = {
  'cifar10': 'CIFAR-10',
  'cifar100': 'CIFAR-100',
  'cifar100_train': 'CIFAR-100 train',
  'imagenet2012': 'single crop',
  'imagenet2012_ten_crop': 'ten crops',
}
# One line of the CSV is a figure: what stands in these columns.
CSV_COLUMNS = (
  'key', 'table', 'label', 'network', 'quantity', 'unit', 'paper', 'ours', 'appears_under',
  'std', 'runs', 'seeds', 'epochs', 'departures',
)  # fmt: skip


def as_json(audit: Record) -> str:
  """The whole audit; its fields are documented in `bitnet_jax.audit`."""
  return json.dumps(audit, indent=2) + '\n'


def as_csv(audit: Record) -> str:
  """A line for each figure: sizes, then errors; several ways of training make several lines."""
  stream = io.StringIO()
  writer = csv.DictWriter(stream, CSV_COLUMNS, restval='', lineterminator='\n')
  writer.writeheader()
  for row in audit['rows']:
    head = {field: row[field] for field in ('key', 'table', 'label')}
    writer.writerows({**head, 'network': row['network'] or '', **line} for line in _lines(row))
  return stream.getvalue()


def _lines(row: Record) -> list[Record]:
  lines = [{'quantity': 'depth', 'unit': 'layers', **row['depth']}]
  for quantity in ('parameters', 'multiply_adds'):
    figure, scale = row[quantity], 10**6 if quantity == 'parameters' else 10**9
    printed = round(figure['paper'] * scale) if figure['digits'] else None
    under = figure['appears_under'] or ''
    line = {'quantity': quantity, 'unit': '1', 'paper': printed, 'ours': figure['ours']}
    lines.append({**line, 'appears_under': under})
  lines = [line for line in lines if line['paper'] is not None or line['ours'] is not None]
  for error in row['errors']:
    line = {'quantity': error['cell'], 'unit': '%', 'paper': error['paper']}
    for group in error['measured'] or [{}]:
      lines.append({**line, **_measured_columns(group)})
  return lines


def _measured_columns(group: Record) -> Record:
  if not group:
    return {}
  return {
    'ours': group['mean'],
    'std': group['std'],
    'runs': group['runs'],
    'seeds': ' '.join(map(str, group['seeds'])),
    'epochs': group['epochs'],
    'departures': ' '.join(group['departures']),
  }


def header(table: int, rows: Sequence[Record]) -> list[str]:
  """The columns of a table."""
  cells = list(dict.fromkeys(error['cell'] for row in rows for error in row['errors']))
  errors = [column for cell in cells for column in (f'{_CELLS[cell]} %', 'ours %')]
  return ['row', 'depth', 'ours', 'M param.', 'ours', 'G mult-add', 'ours', 'as printed', *errors]


def body(rows: Sequence[Record]) -> list[list[str]]:
  """The cells of a table; '-' is not printed or not counted, 'not run' has no finished run."""
  cells = list(dict.fromkeys(error['cell'] for row in rows for error in row['errors']))
  lines = []
  for row in rows:
    errors = {error['cell']: error for error in row['errors']}
    line = [
      row['key'].partition('/')[2],
      _text(row['depth']['paper']),
      _text(row['depth']['ours']),
      row['parameters']['digits'] or '-',
      _text(row['parameters']['ours']),
      row['multiply_adds']['digits'] or '-',
      _billions(row['multiply_adds']['ours']),
      verdict(row),
    ]
    for cell in cells:
      error = errors.get(cell)
      line += [error['digits'], _mean(error, row)] if error else ['-', '-']
    lines.append(line)
  return lines


def verdict(row: Record) -> str:
  """Whether a row's sizes are the printed ones: as trained, or under which convention."""
  parts = []
  if row['network'] is None:
    return 'not built here'
  trained = row['parameters']['by_convention'][0]['convention'].split(', ')
  for quantity, short in (('parameters', 'M'), ('multiply_adds', 'G')):
    figure = row[quantity]
    if not figure['digits'] or figure['appears_under'] == ', '.join(trained):
      continue
    under = figure['appears_under']
    others = [text for text in (under or '').split(', ') if text not in trained]
    parts.append(f'{short} {" ".join(others)}' if under else f'{short} nowhere')
  return '; '.join(parts) or 'yes'


def _text(value: int | None) -> str:
  return '-' if value is None else f'{value:,}'


def _billions(value: int | None) -> str:
  return '-' if value is None else f'{value / 1e9:.3f}'


def _mean(error: Record, row: Record) -> str:
  """The mean over the seeds of the runs that are closest to the paper's recipe."""
  if not error['measured']:
    return 'not run' if row['network'] else '-'
  group = error['measured'][0]
  digits = 3 if error['cell'].endswith('train') else 2
  spread = '' if group['std'] is None else f' ± {group["std"]:.{digits}f}'
  return f'{group["mean"]:.{digits}f}{spread} ({_condition(group)})'


def _condition(group: Record) -> str:
  count = f'{group["runs"]} run' + ('s' if group['runs'] > 1 else '')
  changed = len(group['departures'])
  note = f', {changed} fields changed' if changed > 1 else ''
  if changed == 1:
    note = f', {group["departures"][0]}'
  return f'{count}, {group["epochs"]:g} epochs{note}'


def sentences(audit: Record) -> list[str]:
  """What has to be said of the figures in words."""
  found = []
  for row in audit['rows']:
    figures = [row[quantity]['sentence'] for quantity in ('parameters', 'multiply_adds')]
    texts = [text for text in figures if text and not text.endswith('as trained.')]
    if row['sentence']:
      texts.append(row['sentence'])
    found += [f'{row["key"]}: {" ".join(texts)}'] if texts else []
  return found + [claims.sentence(claim) for claim in audit['claims']]


def outcome(audit: Record) -> str:
  """One line: how many of the counts that have to be met are."""
  met = len(audit['golden']) - len(audit['missed'])
  return f'{met} of {len(audit["golden"])} counts of this implementation are exact.'


def missed(audit: Record) -> list[str]:
  """A line for each count that is not what it has to be."""
  return [
    f'missed: {entry["network"]} {entry["quantity"]} ({entry["convention"]}): '
    f'{entry["counted"]}, not {entry["expected"]} x {entry["unit"]}'
    for entry in audit['missed']
  ]


def unmatched(audit: Record) -> list[str]:
  """A line for each run that reproduces no row."""
  return [
    f'{run["workdir"]}: {run["network"]} on {run["data"]}, {run["error"]:.2f} % after '
    f'{run["epochs"]:g} epochs; reproduces no row.'
    for run in audit['unmatched_runs']
  ]


def _notes(audit: Record) -> list[str]:
  return [*sentences(audit), *unmatched(audit), *missed(audit), outcome(audit)]


def as_table(audit: Record) -> str:
  """Aligned columns for a terminal."""
  return _document(audit, title='{}', line=_aligned, note='  {}')


def as_markdown(audit: Record) -> str:
  """Markdown."""
  return _document(audit, title='## {}', line=_piped, note='- {}')


def _document(
  audit: Record, *, title: str, line: Callable[[list[str], list[list[str]]], str], note: str
) -> str:
  parts = []
  for table, name in TITLES.items():
    rows = [row for row in audit['rows'] if row['table'] == table]
    parts += [title.format(name), '', line(header(table, rows), body(rows)), '']
  parts += [title.format('In words'), '', *[note.format(text) for text in _notes(audit)]]
  return '\n'.join(parts) + '\n'


def _aligned(head: list[str], lines: list[list[str]]) -> str:
  widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
  return '\n'.join(
    '  '.join(
      # The first and the eighth column are words, the rest numbers.
      cell.ljust(width) if index in (0, 7) else cell.rjust(width)
      for index, (cell, width) in enumerate(zip(line, widths, strict=True))
    ).rstrip()
    for line in [head, *lines]
  )


def _piped(head: list[str], lines: list[list[str]]) -> str:
  rule = ['---' if index in (0, 7) else '---:' for index in range(len(head))]
  return '\n'.join(f'| {" | ".join(line)} |' for line in [head, rule, *lines])


FORMATS: dict[str, Callable[[Record], str]] = {
  'table': as_table,
  'markdown': as_markdown,
  'csv': as_csv,
  'json': as_json,
}
