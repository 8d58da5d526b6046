"""Real training runs for the fault tests: started, watched, harmed, looked at.

Compiled steps are kept in a cache that the runs of a test file share, so that a run that is started
again takes seconds.
"""

import contextlib
import io
import json
import os
import pathlib
import subprocess
import tempfile
import time

from absl.testing import absltest

from bitnet_jax.data.datasets import prepared
from tests.helpers import train_process

TIMEOUT = 300
FOUND = []  # (row of the table, what was measured), printed at the end of each file.


class FaultCase(absltest.TestCase):
  """Prepares the digits; runs work in `self.folder`."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.folder = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
    cls.data_dir = cls.folder / 'data'
    with contextlib.redirect_stderr(io.StringIO()):  # tfds shows bars.
      prepared.prepare('digits', str(cls.data_dir))

  @classmethod
  def tearDownClass(cls):
    super().tearDownClass()
    while FOUND:
      print('\nmeasured: {}: {}'.format(*FOUND.pop(0)), end='')

  def environment(self, **variables):
    cache = {
      'JAX_COMPILATION_CACHE_DIR': str(self.folder / 'cache'),
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    }
    return {**train_process.environment(1), **cache, **variables}

  def start(self, workdir, *, variables=None, program=None, data_dir=None, **fields):
    """Starts a run whose output goes to a file.

    `program` names one of tests/helpers/programs that replaces the training command.
    """
    command = train_process.command(workdir, data_dir or self.data_dir, fields, program)
    with tempfile.TemporaryFile(dir=self.folder) as output:
      process = subprocess.Popen(
        command,
        env=self.environment(**(variables or {})),
        cwd=self.folder,
        stdout=output,
        stderr=subprocess.STDOUT,
      )
      process.output = os.fdopen(os.dup(output.fileno()), 'rb')
    self.addCleanup(process.output.close)
    self.addCleanup(process.kill)
    process.started = time.monotonic()
    return process

  def text(self, process):
    process.output.seek(0)
    return process.output.read().decode(errors='replace')

  def wait_for(self, process, marker, timeout=TIMEOUT):
    """Waits for `marker` in the output, or, if it is a path, until that is there."""
    deadline = time.monotonic() + timeout
    while True:
      if isinstance(marker, pathlib.Path):
        seen = marker.exists()
      else:
        seen = marker in self.text(process)
      if seen:
        return
      self.assertIsNone(process.poll(), self.text(process)[-3000:])
      self.assertLess(time.monotonic(), deadline, f'{marker} did not come')
      time.sleep(0.005)

  def ends(self, process, code, line='', since=None):
    """The process ends with `code` and one line that matches; gives the seconds that it took."""
    since = since or time.monotonic()
    process.wait(TIMEOUT)
    took = time.monotonic() - since
    text = self.text(process)
    self.assertEqual(process.returncode, code, text[-3000:])
    self.assertFalse('Traceback' in text, text[-2000:])
    if line:
      errors = [row for row in text.splitlines() if 'bitnet_jax: error: ' in row]
      self.assertLen(errors, 1, text[-3000:])
      self.assertRegex(errors[0], line)
    return took

  def completes(self, workdir, **options):
    process = self.start(workdir, **options)
    self.ends(process, 0)
    return self.text(process)

  def reference(self, **fields):
    """Work directory of a run with these fields that nothing disturbed; made once a file."""
    name = '-'.join(f'{key}={value}' for key, value in sorted(fields.items())) or 'plain'
    workdir = self.folder / f'reference-{name}'.replace('/', '_')
    if not (workdir / 'result.json').exists():
      self.completes(workdir, **fields)
    return workdir

  def assertSameRun(self, workdir, reference):
    """Rows of all metrics, result and final state, bit for bit."""
    self.assertEqual(train_process.rows(workdir), train_process.rows(reference))
    results = [json.loads((path / 'result.json').read_text()) for path in (workdir, reference)]
    for name in ('error', 'loss', 'correct', 'count', 'step'):
      self.assertEqual(results[0][name], results[1][name], name)
    self.assertEqual(state_bits(workdir), state_bits(reference))


def state_bits(workdir):
  """All arrays of the last checkpoint as bytes, by name; read by Orbax in this process."""
  import jax
  import numpy as np
  import orbax.checkpoint as ocp

  steps = [int(path.name) for path in (workdir / 'checkpoints').iterdir()]
  with ocp.StandardCheckpointer() as checkpointer:
    state = checkpointer.restore(workdir / 'checkpoints' / str(max(steps)) / 'state')
  leaves = jax.tree_util.tree_leaves_with_path(state)
  return {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in leaves}
