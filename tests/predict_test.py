"""The prediction command against a plain NumPy rendering of it."""

import csv
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
from absl.testing import absltest, parameterized

from bitnet_jax import errors
from bitnet_jax.inference import predict_images
from tests.helpers.evaluate_case import EvaluateCase
from tests.helpers.paths import ROOT


def read_csv(path):
  with open(path, newline='') as file:
    return list(csv.DictReader(file))


class PredictTest(EvaluateCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.paths = []
    for index in range(35):  # More than a batch.
      path = self.folder / f'{index}.png'
      path.write_bytes(self.source[index].encoded)
      self.paths.append(str(path))

  def test_equals_numpy(self):
    logits = self.logits(self.loaded.image[:35])
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    predictions = list(predict_images.predict(self.workdir, self.paths))
    self.assertEqual([path for path, _ in predictions], self.paths)
    for row, (_, classes) in zip(shares, predictions, strict=True):
      self.assertLen(classes, 5)
      for (name, share), label in zip(classes, np.argsort(-row)[:5], strict=True):
        self.assertEqual(name, str(label))
        self.assertAlmostEqual(share, row[label], places=5)

  def test_command(self):
    table = self.folder / 'out.csv'
    done = subprocess.run(
      [
        sys.executable,
        '-m',
        'bitnet_jax.predict',
        f'--workdir={self.workdir}',
        *self.paths[:2],
        f'--csv={table}',
      ],
      cwd=ROOT,
      capture_output=True,
      text=True,
      check=False,
    )
    self.assertEqual((done.returncode, done.stderr), (0, ''))
    lines = done.stdout.splitlines()
    self.assertLen(lines, 2)
    best = self.logits(self.loaded.image[:2]).argmax(axis=1)
    for line, path, label in zip(lines, self.paths, best, strict=False):
      self.assertStartsWith(line, f'{path}: {label} ')
    rows = read_csv(table)
    self.assertEqual(
      [(r['image'], r['rank'], r['class']) for r in rows if r['rank'] == '1'],
      [(path, '1', str(label)) for path, label in zip(self.paths, best, strict=False)],
    )

  @parameterized.parameters(
    ('{}/absent/out.csv', 2, 'no such directory; make it or name another'),
    ('{}', 2, 'is a directory; name a file'),
    ('/dev/full', 6, 'No space left on device; free space there'),
  )
  def test_table_that_cannot_be_written(self, path, code, line):
    path = path.format(self.folder)
    done = subprocess.run(
      [
        *(sys.executable, '-m', 'bitnet_jax.predict', f'--workdir={self.workdir}'),
        *(self.paths[0], f'--csv={path}'),
      ],
      cwd=ROOT,
      capture_output=True,
      text=True,
      check=False,
    )
    self.assertEqual(done.stderr, f'bitnet_jax: error: csv={path}: {line}\n')
    self.assertEqual((done.returncode, bool(done.stdout)), (code, code == 6))

  def test_unreadable_image(self):
    for name, line in (('absent.png', 'No such file'), ('text.png', 'neither a JPEG nor a PNG')):
      (self.folder / 'text.png').write_text('text')
      with self.assertRaisesRegex(errors.DataError, f'image=.*{name}: {line}'):
        list(predict_images.predict(self.workdir, [str(self.folder / name)]))


if __name__ == '__main__':
  absltest.main()
