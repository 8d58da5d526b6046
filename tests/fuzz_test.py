"""Fuzzed command lines and configuration files: one line, the right exit code, no traceback.

`FUZZ_CASES` sets how many; the nightly run of tests/faults takes 10,000. Of each command but the
training one a tenth as many, and at least 20, are tried, on a real run and a real data set.
"""

import collections
import json
import os
import pathlib
import tempfile

import hypothesis
import numpy as np
from absl.testing import absltest, parameterized
from PIL import Image

from tests.helpers import fuzz, fuzz_commands, train_process

CASES = int(os.environ.get('FUZZ_CASES', '150'))


def try_each(strategy, count, check):
  """Calls `check` with so many cases."""

  @hypothesis.settings(
    max_examples=count,
    deadline=None,
    derandomize='FUZZ_CASES' not in os.environ,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
  )
  @hypothesis.given(strategy)
  def each(case):
    check(*case)

  each()


class FuzzTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
    cls.server = fuzz.Server(cls.folder)
    cls.addClassCleanup(cls.server.close)

  def paths_in(self, arguments):
    """Work directories and the generated file lie in the temporary directory."""
    for argument in arguments:
      for name in ('--workdir=', '--config='):
        path = argument.removeprefix(name)
        if argument.startswith(name) and path.split('/')[0] in ('w', 'file', 'generated.py'):
          argument = f'{name}{self.folder}/{path}'
      yield argument

  def check(self, arguments, text, codes):
    (self.folder / 'file').touch()
    if text is not None:
      content = text.encode('utf-8', errors='surrogatepass')
      (self.folder / 'generated.py').write_bytes(content)
    code, stdout, stderr = self.server.run(list(self.paths_in(arguments)))
    fault = fuzz.fault(code, stdout, fuzz.without_logs(arguments, stderr), codes)
    self.assertEqual(fault, '', f'{arguments}\n{text}\n{stdout[-500:]}\n{stderr[-2000:]}')
    return fuzz.REACHED in stdout

  def test_generated_cases(self):
    seen = reached = 0

    def check(*case):
      nonlocal seen, reached
      seen += 1
      reached += self.check(*case)

    try_each(fuzz.cases(), CASES, check)
    self.assertGreaterEqual(seen, CASES)
    # The others are refused for their names, types and ranges alone.
    self.assertGreater(reached, seen / 10)
    print(f'{seen} cases, {reached} of which got as far as devices, plan, model and optimizer')

  def test_the_check_sees_faults(self):
    line = 'bitnet_jax: error: a=1: b; c\n'
    self.assertEqual(fuzz.fault(2, '', line, {2}), '')
    for code, stderr in (
      (0, line),
      (1, line),
      (2, ''),
      (2, line + line),
      (2, 'Traceback (most recent call last)\n' + line),
      (2, 'bitnet_jax: error: internal=KeyError: b; c\n'),
      (2, 'bitnet_jax: error: what\n'),
    ):
      self.assertNotEqual(fuzz.fault(code, '', stderr, {0, 2}), '', stderr)

  def test_logs_that_were_asked_for_are_no_fault(self):
    log = 'I1123 07:46:08.360755 140217285405568 xla_bridge.py:849] Unable to initialize\n'
    self.assertEqual(fuzz.without_logs(['-verbosity=0'], log), '')
    self.assertEqual(fuzz.without_logs(['--v=1'], log + 'words\n'), 'words\n')
    self.assertEqual(fuzz.without_logs(['--config=a.py'], log), log)


class CommandsTest(train_process.DataCase, parameterized.TestCase):
  """The commands that use what a run made, and the one that makes its data."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.run_main(cls, cls.folder / 'run', num_epochs=0.1)
    cls.places = {name: str(cls.folder / name) for name in ('run', 'data', 'none', 'file')}
    cls.places['csv'] = str(cls.folder / 'out.csv')
    cls.places['step'] = json.loads((cls.folder / 'run' / 'result.json').read_text())['step']
    cls.places['image'] = str(cls.folder / 'images' / 'train' / 'a' / '1.png')
    cls.places['folder'] = str(cls.folder / 'images')
    cls.places['text'] = str(cls.folder / 'text.png')
    for name in ('train/a', 'train/b', 'test/a'):
      (cls.folder / 'images' / name).mkdir(parents=True)
      pixels = np.arange(64, dtype=np.uint8).reshape(8, 8)
      Image.fromarray(pixels).save(cls.folder / 'images' / name / '1.png')
    pathlib.Path(cls.places['file']).touch()
    pathlib.Path(cls.places['text']).write_text('text')

  @parameterized.parameters(*fuzz_commands.COMMANDS)
  def test_generated_cases(self, command):
    server = fuzz.Server(self.folder, command)
    self.addCleanup(server.close)
    ends = collections.Counter()

    def check(arguments, codes):
      code, stdout, stderr = server.run(arguments)
      fault = fuzz.fault(code, stdout, stderr, codes)
      self.assertEqual(fault, '', f'{arguments}\n{stdout[-500:]}\n{stderr[-2000:]}')
      ends[code] += 1

    try_each(fuzz_commands.cases(command, self.places), max(20, CASES // 10), check)
    self.assertGreater(ends[0], 0)
    self.assertGreater(ends[2], 0)
    print(f'{command}: {ends.total()} cases, by exit code {dict(sorted(ends.items()))}')


if __name__ == '__main__':
  absltest.main()
