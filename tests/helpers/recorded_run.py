"""Runs that write down the examples of each step."""

import json
import pathlib

from tests.helpers import faults


def examples(path):
  """The examples of each step, by step; a step that was taken again has to have the same ones."""
  found = {}
  for line in path.read_text().splitlines():
    try:
      number, seen = json.loads(line)
    except ValueError:
      continue  # Cut short by a kill.
    assert found.setdefault(number, seen) == seen, f'step {number} had other examples'
  return found


class RecordedCase(faults.FaultCase):
  """Runs that write down the examples of each step in WORKDIR.examples."""

  def recorded(self, workdir, **options):
    variables = {'EXAMPLES': str(workdir) + '.examples', **options.pop('variables', {})}
    return self.start(workdir, program='records_examples', variables=variables, **options)

  def recorded_reference(self, **fields):
    workdir = self.folder / f'recorded-{len(fields)}'
    if not workdir.exists():
      self.ends(self.recorded(workdir, **fields), 0)
    return workdir

  def assertSameExamples(self, workdir, reference):
    pair = [examples(pathlib.Path(f'{path}.examples')) for path in (workdir, reference)]
    self.assertEqual(*pair)
