"""Compares every row of the paper's tables with what is counted and measured, for the audit."""

from __future__ import annotations

import decimal
import itertools
from collections.abc import Sequence
from typing import Any

from bitnet_jax.analysis.audit import claims, counts, measured, paper
from bitnet_jax.analysis.audit.networks import Convention, Network
from bitnet_jax.analysis.audit.paper import Golden, Row

Record = dict[str, Any]
_Count = tuple[Convention, int]

_UNITS = {'parameters': (paper.MILLION, 'M'), 'multiply_adds': (paper.BILLION, 'G')}


def audit(runs: Sequence[measured.FinishedRun] = ()) -> Record:
  """Checks every table.

  Args:
    runs: finished runs, whose errors stand beside the paper's.

  Returns:
    'rows', 'golden', 'claims', 'unmatched_runs' and 'missed', as `bitnet_jax.audit` documents.
  """
  golden = [check_golden(entry) for entry in paper.GOLDEN]
  cells = {(row.network, cell) for row in paper.ROWS for cell in row.errors if row.network}
  return {
    'rows': [audit_row(row, runs) for row in paper.ROWS],
    'golden': golden,
    'claims': claims.check(),
    'unmatched_runs': [run.describe() for run in runs if (run.network, run.data) not in cells],
    'missed': [entry for entry in golden if not entry['agrees']],
  }


def agrees(count: int, digits: str, unit: int) -> bool:
  """Returns whether a count, rounded to as many digits as are printed, is the printed number.

  A count half way between two printable numbers agrees with both.
  """
  printed = decimal.Decimal(digits)
  half = decimal.Decimal(1).scaleb(int(printed.as_tuple().exponent)) * unit / 2
  return count == printed if unit == 1 else abs(count - printed * unit) <= half


def check_golden(entry: Golden) -> Record:
  """Compares one required count with the modules that train."""
  count = counts.count(entry.network, entry.quantity, entry.convention)
  return {
    'network': str(entry.network),
    'quantity': entry.quantity,
    'convention': str(entry.convention),
    'expected': entry.digits,
    'unit': entry.unit,
    'counted': count,
    'agrees': agrees(count, entry.digits, entry.unit),
  }


def audit_row(row: Row, runs: Sequence[measured.FinishedRun]) -> Record:
  """Compares one row of a table with the counts and with the errors of finished runs."""
  network = row.network
  errors = [
    {
      'cell': cell,
      'paper': float(digits),
      'digits': digits,
      'measured': measured.summarize(runs, network, cell) if network else [],
    }
    for cell, digits in row.errors.items()
  ]
  record: Record = {
    'key': row.key,
    'table': row.table,
    'label': row.label,
    'network': str(network) if network else None,
    'depth': {'paper': row.depth or None, 'ours': counts.trace(network).depth if network else None},
    'parameters': figure(row, 'parameters', row.parameters),
    'multiply_adds': figure(row, 'multiply_adds', row.multiply_adds),
    'errors': errors,
  }
  record['sentence'] = _joint_sentence(record)
  if row.output_sizes and network:
    ours = counts.trace(network).output_sizes
    record['output_sizes'] = {'paper': list(row.output_sizes), 'ours': list(ours)}
  return record


def conventions(network: Network, quantity: str) -> list[Convention]:
  """Returns every convention under which the network's count differs, the one as trained first."""
  projections = (1, 3) if has_projections(network) else (1,)
  norms = (True, False) if quantity == 'parameters' else (True,)
  classes = (10, 100) if network.is_cifar else (1000,)
  every = [Convention(*parts) for parts in itertools.product(classes, norms, projections)]
  return sorted(every, key=lambda convention: len(convention.differences(network.trained)))


def has_projections(network: Network) -> bool:
  """Returns whether a 1x1 convolution changes the width of a shortcut."""
  return counts.trace(network, 3) != counts.trace(network)


def figure(row: Row, quantity: str, digits: str) -> Record:
  """Compares a printed size with the count as trained and under every other convention."""
  network = row.network
  table: list[_Count] = []
  if network:
    for convention in conventions(network, quantity):
      table.append((convention, counts.count(network, quantity, convention)))
  unit, _ = _UNITS[quantity]
  hits = [pair for pair in table if digits and agrees(pair[1], digits, unit)]
  return {
    'paper': float(digits) if digits else None,
    'digits': digits,
    'ours': table[0][1] if table else None,
    'by_convention': [
      {'convention': str(convention), 'count': count, 'appears': (convention, count) in hits}
      for convention, count in table
    ],
    'appears_under': str(hits[0][0]) if hits else None,
    'sentence': _sentence(row, quantity, digits, table, hits) if digits and table else '',
  }


def _sentence(
  row: Row, quantity: str, digits: str, table: Sequence[_Count], hits: Sequence[_Count]
) -> str:
  """Returns in words under which convention a printed size appears."""
  unit, letter = _UNITS[quantity]
  trained, ours = table[0]
  if not hits:
    nearest, count = min(table, key=lambda pair: abs(pair[1] - float(digits) * unit))
    text = f'appears under no convention; the nearest ({nearest}) gives {count:,}.'
  elif hits[0][0] == trained:
    text = f'is {ours:,}, as trained.'
  else:
    convention, count = hits[0]
    difference = ' and '.join(convention.differences(trained))
    only = 'only' if difference.startswith('without') else 'only with'
    text = (
      f'appears {only} {difference} ({count:,}); as trained the network has '
      f'{ours:,}, {100 * (ours / count - 1):+.1f} %.'
    )
  if row.literal and row.network:
    literal = counts.count(row.literal, quantity, row.literal.trained)
    text += (
      f" It is the width {row.network.width_factor:g}; the label's {row.literal.width_factor:g} "
      f'would have {literal / unit:.1f} {letter}.'
    )
  return f'{digits} {letter} {text}'


def _joint_sentence(record: Record) -> str:
  """Returns a sentence where no one convention gives both printed sizes of a row, else ''."""
  # Batch norm has no multiply-adds, so a cost stands for both ways of counting the parameters.
  hits = [
    {
      entry['convention'].replace('without batch norm', 'with batch norm')
      for entry in record[quantity]['by_convention']
      if entry['appears']
    }
    for quantity in _UNITS
    if record[quantity]['digits']
  ]
  if len(hits) < 2 or not record['network'] or set.intersection(*hits):
    return ''
  return 'No one convention gives both of its printed figures.'
