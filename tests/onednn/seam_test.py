"""Without `onednn/` and three lines of one file, the program works on XLA's kernels."""

import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from absl.testing import absltest

from tests.helpers import train_process
from tests.helpers.paths import ROOT

SEAM = re.compile(r'bitnet_jax\.onednn|:= unavailable\(|return make_kernels\(')


class SeamTest(train_process.DataCase):
  def test_trains_and_predicts_without_the_kernels(self):
    copy = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    shutil.copytree(ROOT / 'bitnet_jax', copy / 'bitnet_jax')
    shutil.rmtree(copy / 'bitnet_jax' / 'onednn')
    users = [path for path in copy.rglob('*.py') if SEAM.search(path.read_text())]
    self.assertEqual([path.name for path in users], ['build.py'])
    lines = users[0].read_text().splitlines(keepends=True)
    kept = [line for line in lines if not SEAM.search(line)]
    self.assertLen(lines, len(kept) + 3)
    users[0].write_text(''.join(kept))

    workdir = self.folder / 'without'
    environment = {**train_process.environment(1), 'PYTHONPATH': str(copy)}
    command = train_process.command(workdir, self.data_dir, {'num_epochs': 0.2})

    def run(*arguments):
      done = subprocess.run(
        arguments, env=environment, cwd=copy, capture_output=True, text=True, timeout=200
      )
      self.assertEqual(done.returncode, 0, done.stderr[-2000:])
      return done.stdout

    self.assertIn('test error', run(*command))
    evaluate = (sys.executable, '-m', 'bitnet_jax.evaluate', f'--workdir={workdir}')
    self.assertIn('top-1 error', run(*evaluate))


if __name__ == '__main__':
  absltest.main()
