"""Writes the audit as a terminal's table, Markdown, CSV or JSON, for the command and the report."""

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
_WORDS = (0, 7)  # Columns of a table that hold words; the rest hold numbers.
CSV_COLUMNS = (
  'key', 'table', 'label', 'network', 'quantity', 'unit', 'paper', 'ours', 'appears_under',
  'std', 'runs', 'seeds', 'epochs', 'departures',
)  # fmt: skip


def as_json(audit: Record) -> str:
  """Returns the whole audit; `bitnet_jax.audit` documents its fields."""
  return json.dumps(audit, indent=2) + '\n'


def as_csv(audit: Record) -> str:
  """Returns a line for each printed or counted figure, and for each way of training.

  A row's sizes come before its errors.
  """
  stream = io.StringIO()
  writer = csv.DictWriter(stream, CSV_COLUMNS, restval='', lineterminator='\n')
  writer.writeheader()
  for row in audit['rows']:
    head = {field: row[field] for field in ('key', 'table', 'label', 'network')}
    writer.writerows({**head, **line} for line in _csv_lines(row))
  return stream.getvalue()


def _csv_lines(row: Record) -> list[Record]:
  lines = [{'quantity': 'depth', 'unit': 'layers', **row['depth']}]
  for quantity, scale in (('parameters', 10**6), ('multiply_adds', 10**9)):
    size = row[quantity]
    line = {'quantity': quantity, 'unit': '1', 'ours': size['ours']}
    line['paper'] = round(size['paper'] * scale) if size['digits'] else None
    lines.append({**line, 'appears_under': size['appears_under']})
  lines = [line for line in lines if line['paper'] is not None or line['ours'] is not None]
  for error in row['errors']:
    line = {'quantity': error['cell'], 'unit': '%', 'paper': error['paper']}
    lines += [{**line, **_measured_columns(group)} for group in error['measured']] or [line]
  return lines


def _measured_columns(group: Record) -> Record:
  return {
    'ours': group['mean'],
    **{field: group[field] for field in ('std', 'runs', 'epochs')},
    **{field: ' '.join(map(str, group[field])) for field in ('seeds', 'departures')},
  }


def _cells(rows: Sequence[Record]) -> list[str]:
  return list(dict.fromkeys(error['cell'] for row in rows for error in row['errors']))


def header(rows: Sequence[Record]) -> list[str]:
  """Returns the names of the columns of a table with these rows."""
  errors = [column for cell in _cells(rows) for column in (f'{_CELLS[cell]} %', 'ours %')]
  return ['row', 'depth', 'ours', 'M param.', 'ours', 'G mult-add', 'ours', 'as printed', *errors]


def body(rows: Sequence[Record]) -> list[list[str]]:
  """Returns the cells of a table.

  A '-' stands for a figure that is not printed or not counted, 'not run' for the error of a network
  that no finished run trained.
  """
  lines = []
  for row in rows:
    errors = {error['cell']: error for error in row['errors']}
    work = row['multiply_adds']['ours']
    line = [
      row['key'].partition('/')[2],
      _text(row['depth']['paper']),
      _text(row['depth']['ours']),
      row['parameters']['digits'] or '-',
      _text(row['parameters']['ours']),
      row['multiply_adds']['digits'] or '-',
      '-' if work is None else f'{work / 1e9:.3f}',
      verdict(row),
    ]
    for cell in _cells(rows):
      error = errors.get(cell)
      line += [error['digits'], _mean(error, row)] if error else ['-', '-']
    lines.append(line)
  return lines


def verdict(row: Record) -> str:
  """Returns whether a row's sizes are printed as trained, or which convention gives the print."""
  if row['network'] is None:
    return 'not built here'
  parts = []
  trained = row['parameters']['by_convention'][0]['convention'].split(', ')
  for quantity, unit in (('parameters', 'M'), ('multiply_adds', 'G')):
    if row[quantity]['digits']:
      under = row[quantity]['appears_under']
      others = [part for part in (under or 'nowhere').split(', ') if part not in trained]
      parts += [f'{unit} {" ".join(others)}'] if others else []
  return '; '.join(parts) or 'yes'


def _text(value: int | None) -> str:
  return '-' if value is None else f'{value:,}'


def _mean(error: Record, row: Record) -> str:
  """Returns the mean over the seeds of the runs that are closest to the paper's recipe."""
  if not error['measured']:
    return 'not run' if row['network'] else '-'
  group = error['measured'][0]
  digits = 3 if error['cell'].endswith('train') else 2
  spread = '' if group['std'] is None else f' ± {group["std"]:.{digits}f}'
  runs = f'{group["runs"]} run' + ('s' if group['runs'] > 1 else '')
  changed = group['departures']
  if len(changed) > 1:
    changed = [f'{len(changed)} fields changed']
  condition = ', '.join([runs, f'{group["epochs"]:g} epochs', *changed])
  return f'{group["mean"]:.{digits}f}{spread} ({condition})'


def sentences(audit: Record) -> list[str]:
  """Returns what the tables cannot show: where printed figures come from, and the claims."""
  lines = []
  for row in audit['rows']:
    texts = [row[quantity]['sentence'] for quantity in ('parameters', 'multiply_adds')]
    texts = [text for text in texts if not text.endswith('as trained.')] + [row['sentence']]
    if any(texts):
      lines.append(f'{row["key"]}: {" ".join(filter(None, texts))}')
  return lines + [claims.sentence(claim) for claim in audit['claims']]


def outcome(audit: Record) -> str:
  """Returns a line that says how many of the required counts are met."""
  met = len(audit['golden']) - len(audit['missed'])
  return f'{met} of {len(audit["golden"])} counts of this implementation are exact.'


def missed(audit: Record) -> list[str]:
  """Returns a line for each count that differs from the required one."""
  return [
    f'missed: {entry["network"]} {entry["quantity"]} ({entry["convention"]}): '
    f'{entry["counted"]}, not {entry["expected"]} x {entry["unit"]}'
    for entry in audit['missed']
  ]


def unmatched(audit: Record) -> list[str]:
  """Returns a line for each run that reproduces no row."""
  return [
    f'{run["workdir"]}: {run["network"]} on {run["data"]}, {run["error"]:.2f} % after '
    f'{run["epochs"]:g} epochs; reproduces no row.'
    for run in audit['unmatched_runs']
  ]


def as_table(audit: Record) -> str:
  """Returns the audit in aligned columns for a terminal."""
  return _document(audit, title='{}', table=_aligned, note='  {}')


def as_markdown(audit: Record) -> str:
  """Returns the audit in Markdown."""
  return _document(audit, title='## {}', table=_piped, note='- {}')


def _document(
  audit: Record, *, title: str, table: Callable[[list[str], list[list[str]]], str], note: str
) -> str:
  parts = []
  for number, name in TITLES.items():
    rows = [row for row in audit['rows'] if row['table'] == number]
    parts += [title.format(name), '', table(header(rows), body(rows)), '']
  notes = [*sentences(audit), *unmatched(audit), *missed(audit), outcome(audit)]
  parts += [title.format('In words'), '', *map(note.format, notes)]
  return '\n'.join(parts) + '\n'


def _aligned(head: list[str], lines: list[list[str]]) -> str:
  widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
  return '\n'.join(
    '  '.join(
      cell.ljust(width) if index in _WORDS else cell.rjust(width)
      for index, (cell, width) in enumerate(zip(line, widths, strict=True))
    ).rstrip()
    for line in [head, *lines]
  )


def _piped(head: list[str], lines: list[list[str]]) -> str:
  rule = ['---' if index in _WORDS else '---:' for index in range(len(head))]
  return '\n'.join(f'| {" | ".join(line)} |' for line in [head, rule, *lines])


FORMATS: dict[str, Callable[[Record], str]] = {
  'table': as_table,
  'markdown': as_markdown,
  'csv': as_csv,
  'json': as_json,
}
