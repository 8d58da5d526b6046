"""Fuzzed command lines and configuration files: one line, the right exit code, no traceback.

`FUZZ_CASES` sets how many; the nightly run of tests/faults takes 10,000.
"""

import os
import pathlib
import tempfile

import hypothesis
from absl.testing import absltest

from tests import fuzz

CASES = int(os.environ.get('FUZZ_CASES', '300'))


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

    @hypothesis.settings(
      max_examples=CASES,
      deadline=None,
      derandomize='FUZZ_CASES' not in os.environ,
      database=None,
      suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(fuzz.cases())
    def each(case):
      nonlocal seen, reached
      seen += 1
      reached += self.check(*case)

    each()
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


if __name__ == '__main__':
  absltest.main()
