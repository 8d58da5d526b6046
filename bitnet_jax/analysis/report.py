"""Writes the audit and all figures as one HTML page that loads no other file.

`python -m bitnet_jax.audit --report=DIR` calls `write`, which also writes the figures beside the
page, as PNG and SVG.
"""

from __future__ import annotations

import base64
import html
import pathlib
from collections.abc import Iterator, Sequence

from matplotlib import figure

from bitnet_jax import errors
from bitnet_jax.analysis import curves, figure1, figure2, region_counts, region_figure, tradeoff
from bitnet_jax.analysis.audit import formats, measured
from bitnet_jax.analysis.plotting import metric_rows, plots
from bitnet_jax.analysis.regions import bounds
from bitnet_jax.logs import run_info

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1a1a1a; max-width: 1240px; margin: 2rem auto;
  padding: 0 1rem; }
h1, h2, h3 { line-height: 1.25; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
nav { display: flex; flex-wrap: wrap; gap: .2em 1.2em; }
table { border-collapse: collapse; font-size: 13px; } .wide { overflow-x: auto; }
th, td { padding: .2em .6em; border-bottom: 1px solid #ddd; text-align: right;
  white-space: nowrap; }
th:first-child, td:first-child, th.words, td.words { text-align: left; }
td.measured { white-space: normal; min-width: 9em; }
td.words.off { background: #fdf0d9; }
img { max-width: 100%; height: auto; } figure { margin: 1rem 0; }
figcaption { color: #444; max-width: 60em; } .bad { color: #a40000; font-weight: bold; }
"""


def write(audit: formats.Record, workdirs: Sequence[str], folder: pathlib.Path) -> pathlib.Path:
  """Writes `index.html` and the figures, and returns the page's path.

  Args:
    audit: the audit of `tables.audit`.
    workdirs: work directories of finished runs, whose curves and gradients are drawn.
    folder: directory for the files.

  Raises:
    DataError: a run has not finished, or one of its files is damaged.
  """
  runs = [measured.read(workdir) for workdir in workdirs]
  sections = [
    ('Outcome', _outcome(audit)),
    *((formats.TITLES[table], _table(audit, table)) for table in formats.TITLES),
    ('In words', _list([*formats.sentences(audit), *formats.unmatched(audit)])),
    *_figures(runs, folder),
  ]
  path = folder / 'index.html'
  path.write_text(_page(sections), encoding='utf-8')
  return path


def _figures(
  runs: Sequence[measured.FinishedRun], folder: pathlib.Path
) -> Iterator[tuple[str, str]]:
  """Draws every figure into the folder and yields the sections that show them."""
  yield 'Figure 1: the blocks', _figure(folder, 'figure1', figure1.draw(), _BLOCKS)
  tradeoffs = _figure(folder, 'tradeoff', tradeoff.draw(runs), _TRADEOFF)
  yield 'Error against size and cost', tradeoffs
  regions = _figure(folder, 'regions', region_figure.draw(), _REGIONS)
  yield 'Linear regions', regions + _list(_BOUNDS)
  workdirs = [run.workdir for run in runs]
  if not workdirs:
    note = '<p>No runs were given: name finished ones with <code>--measured=DIR</code>.</p>'
    yield 'Figure 2: gradients', note
    return
  try:
    gradients = _figure(folder, 'figure2', figure2.draw(figure2.read(workdirs)), _GRADIENTS)
  except errors.DataError as error:
    gradients = f'<p>{html.escape(str(error))}</p>'
  yield 'Figure 2: gradients', gradients
  yield 'Learning curves', ''.join(_learning_curves(workdirs, folder))


_BLOCKS = (
  'Read off the jaxpr of the modules that train. Bars are as wide as layers have channels; left '
  'and right child of a level are one fused convolution.'
)
_TRADEOFF = (
  "Every network of Tables 2 to 6 at the paper's errors; sizes as trained here (quoted networks: "
  'as printed; those without a printed size are left out). The thin lines join the networks of '
  'Table 5, which differ in k alone.'
)
_CURVES = 'Dashed: training, on augmented images, mean over the epoch. Solid: test.'
_GRADIENTS = (
  "L2 norm of the loss's gradient with respect to the first convolution's weights, without weight "
  'decay, mean over the steps of an epoch; bands: one standard deviation over seeds.'
)


_REGIONS = (
  f'Distinct affine functions over the window of inputs between -1 and 1, counted exactly by '
  f'subdivision: randomly drawn networks of {region_counts.NUM_BLOCKS} blocks of width '
  f'{region_counts.FEATURES}, mean of {len(region_counts.SEEDS)} seeds in a band from the least '
  'to the greatest. The bounds concern the most that weights of that shape can reach, over the '
  'whole plane; random weights stay far below. They are drawn for the K that the paper states '
  'them for (D at least 2^K n).'
)
_SIZES = region_counts.FEATURES, region_counts.NUM_INPUTS
_UP_TO = f'grows with K up to K = {{:g}} for D = {_SIZES[0]}, n = {_SIZES[1]}.'
_BOUNDS = (
  'The bound of proposition 3.3, (D / (2^K n))^(nKL), '
  + _UP_TO.format(bounds.tree_bound_peak(*_SIZES)),
  'The bound within its proof, prod (D / (2^k n))^n for each block, '
  + _UP_TO.format(bounds.intermediate_bound_peak(*_SIZES)),
  'The bound of corollary 3.2, (D/n)^(nKL), grows with K without end where D > n.',
)


def _learning_curves(workdirs: Sequence[str], folder: pathlib.Path) -> Iterator[str]:
  """Yields figures of as many runs as there are colors."""
  size = len(plots.COLORS)
  names = plots.names(workdirs)
  for number, start in enumerate(range(0, len(workdirs), size), start=1):
    part = slice(start, start + size)
    runs = {
      name: curves.curves_of(metric_rows.read_rows(workdir))
      for name, workdir in zip(names[part], workdirs[part], strict=True)
    }
    yield _figure(folder, f'curves{number}', curves.draw(runs), _CURVES)


def _figure(folder: pathlib.Path, name: str, fig: figure.Figure, caption: str) -> str:
  """Writes a figure as PNG and SVG and returns the HTML that holds the SVG."""
  for suffix in plots.FORMATS:
    plots.save(fig, folder / f'{name}{suffix}')
  data = base64.b64encode((folder / f'{name}.svg').read_bytes()).decode()
  width, height = (round(side * 96) for side in fig.get_size_inches())
  return (
    f'<figure><img alt="{html.escape(name)}" width="{width}" height="{height}" '
    f'src="data:image/svg+xml;base64,{data}"><figcaption>{html.escape(caption)}</figcaption></figure>'
  )


def _outcome(audit: formats.Record) -> str:
  lines = [f'<p>{html.escape(formats.outcome(audit))}</p>']
  lines += [f'<p class="bad">{html.escape(text)}</p>' for text in formats.missed(audit)]
  commit = html.escape(run_info.git_commit())
  return ''.join(lines) + f'<p>Commit {commit}. Sizes are counted from the modules that train.</p>'


def _table(audit: formats.Record, table: int) -> str:
  rows = [row for row in audit['rows'] if row['table'] == table]
  head = formats.header(rows)
  lines = [_line('th', head, head), *(_line('td', head, line) for line in formats.body(rows))]
  return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def _line(tag: str, head: Sequence[str], cells: Sequence[str]) -> str:
  """Returns a line of a table; sizes other than printed are marked, measured errors may wrap."""
  parts = []
  for column, cell in zip(head, cells, strict=True):
    kind = ''
    if column == 'as printed':
      kind = ' class="words"' if cell in ('yes', 'not built here', column) else ' class="words off"'
    elif column == 'ours %' and cell[0].isdigit():
      kind = ' class="measured"'
    parts.append(f'<{tag}{kind}>{html.escape(cell)}</{tag}>')
  return f'<tr>{"".join(parts)}</tr>'


def _list(lines: Sequence[str]) -> str:
  return '<ul>' + ''.join(f'<li>{html.escape(line)}</li>' for line in lines) + '</ul>'


def _page(sections: Sequence[tuple[str, str]]) -> str:
  links, body = '', ''
  for number, (title, content) in enumerate(sections):
    links += f'<a href="#s{number}">{html.escape(title)}</a>'
    body += f'<h2 id="s{number}">{html.escape(title)}</h2>{content}'
  title = 'BitNets: the paper, number by number'
  return (
    '<!DOCTYPE html><html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    f'<title>{title}</title><style>{_STYLE}</style></head><body>'
    f'<h1>{title}</h1><nav>{links}</nav>{body}</body></html>\n'
  )
