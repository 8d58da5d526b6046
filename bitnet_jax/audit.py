"""Compares the paper's tables with what is counted and measured here, for readers of the paper.

  python -m bitnet_jax.audit [--format=table|markdown|csv|json] [--measured=DIR ...] [--report=DIR]

The command counts parameters, multiply-adds and depth of every network of Tables 2 to 7 from the
modules that train, without running one, under each convention that the paper could have meant, and
says under which convention a printed figure appears. `--measured` (repeatable; a work directory, or
a folder of them) fills in the errors of finished runs. `--report` writes one HTML page with the
tables and every figure.

The command exits with 1 if a count is not the one that this implementation has to give.

A row's key is `tableN/NETWORK`: `table2/bitnet-4,6,2` (d, k, n), `table4/resnet18b-x1.5` (width
factor), `table2/nin` (a network that is quoted and not built here). The JSON holds

  rows: a list, in the order of the tables, of
    key, table, label (as printed), network (null if not built here)
    depth: paper, ours (null where not printed, not built)
    parameters, multiply_adds: each
      paper: printed, in millions (parameters) or billions (multiply_adds); null if not printed
      digits: the digits as printed
      ours: exact, as trained: 10 or 1000 classes, with batch norm, 1x1 projections
      by_convention: a list of convention, count, appears (whether the printed figure is this one)
      appears_under: the convention, closest to the trained one, that gives the print; null if none
      sentence: where the printed figure comes from, in words
    errors: a list of
      cell: cifar10, cifar100, cifar100_train, imagenet2012 (single crop), imagenet2012_ten_crop
      paper: percent; digits: the digits as printed
      measured: a list, one for each way of training, the closest to the paper's recipe first, of
        mean, std: percent, over the runs (std of the sample, null of one run)
        runs, seeds, epochs, workdirs
        departures: fields of the configuration that differ from the paper's recipe, and the number
          of test images where it is not that of the paper's split
    sentence: a remark where no one convention gives both printed figures
    output_sizes (Table 3): paper, ours: sides of the feature maps
  golden: a list of the counts that have to be met: network, quantity, convention, expected, unit,
    counted, agrees
  missed: the entries of `golden` that do not agree
  claims: a list of ratios that the text states: section, claim, network, baseline, quantity,
    paper_percent, ours_percent, agrees
  unmatched_runs: runs that reproduce no row: workdir, network, data, seed, epochs, error and
    train_error and ten_crop_error (percent, null if not recorded), departures

The CSV has a line for each figure, with the same names as columns; its sizes are whole numbers.
`evaluate --crops=10` and `evaluate --split=train` write the ten-crop errors, and Table 7's training
errors, for a run's last step; without the latter, the training error is the mean over the last
epoch's augmented batches.
"""

from __future__ import annotations

import pathlib
import sys

from absl import flags

from bitnet_jax import errors
from bitnet_jax.analysis.audit import formats, measured, tables
from bitnet_jax.runtime import cli, path_flags

_FORMAT = flags.DEFINE_enum('format', 'table', list(formats.FORMATS), 'What is printed.')
_MEASURED = path_flags.define_many(
  'measured', [], 'Work directory of a finished run, or a folder of them; repeatable.'
)
_REPORT = path_flags.define('report', '', 'Directory for the HTML page and its figures.')


def main(argv: list[str]) -> int:
  """Prints the audit, writes the report, and returns 1 if a count is missed."""
  del argv
  runs = measured.find(_MEASURED.value)
  audit = tables.audit(runs)
  print(formats.FORMATS[_FORMAT.value](audit), end='')
  if _REPORT.value:
    _write_report(audit, runs)
  for line in formats.missed(audit):
    print(f'bitnet_jax: {line}', file=sys.stderr)
  return 1 if audit['missed'] else 0


def _write_report(audit: formats.Record, runs: list[measured.FinishedRun]) -> None:
  from bitnet_jax.analysis import report  # Loads matplotlib, which a table does not need.

  folder = pathlib.Path(_REPORT.value)
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise errors.StorageError(
      'report', folder, error.strerror or str(error), 'name a directory that can be written'
    ) from error
  page = report.write(audit, [run.workdir for run in runs], folder)
  print(f'report: {page}', file=sys.stderr)


if __name__ == '__main__':
  cli.run(main)
