"""Broken data under a real run: exit code 3 and one line that names what is broken."""

import collections
import contextlib
import io
import json
import os
import pathlib
import random
import shutil

import numpy as np
from absl.testing import absltest, parameterized
from PIL import Image

from bitnet_jax import errors
from bitnet_jax.data.datasets import prepared, shard_manifest, sources
from tests.helpers import faults
from tests.helpers.faults import FOUND

FLIPS = 200
FOLDER = {
  'data.name': 'folder',
  'data.image_size': 8,
  'data.mean': '(120.0, 120.0, 120.0)',
  'data.std': '(60.0, 60.0, 60.0)',
  'eval.batch_size': 4,
  'global_batch_size': 8,
  'model.batch_norm_group': 0,
  'num_epochs': 1,
}


def encode(image, kind='JPEG'):
  file = io.BytesIO()
  image.save(file, kind)
  return file.getvalue()


def noise(mode='RGB', size=(20, 30)):
  channels = {'L': (), 'RGB': (3,), 'CMYK': (4,)}[mode]
  pixels = np.random.default_rng(0).integers(0, 256, (*size, *channels), np.uint8)
  return Image.fromarray(pixels, mode)


def bomb():
  """A PNG that claims 50,000 pixels a side in some hundred bytes."""
  content = bytearray(encode(Image.new('L', (1, 1)), 'PNG'))
  content[16:24] = (50_000).to_bytes(4, 'big') * 2
  import zlib

  content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, 'big')
  return bytes(content)


class DataTest(faults.FaultCase, parameterized.TestCase):
  def copy(self):
    place = self.folder / f'copy-{self.id()}'
    shutil.copytree(self.data_dir, place)
    return place, next(place.glob('digits/*/digits-train.array_record*'))

  def fails(self, row, line, **options):
    run = self.start(self.folder / f'run-{self.id()}', **options)
    took = self.ends(run, 3, line, since=run.started)
    self.assertLess(took, 120)
    FOUND.append((row, f'exit 3 after {took:.1f} s'))

  def test_missing(self):
    self.fails('data set missing', 'is not prepared', data_dir=self.folder / 'nothing')

  def test_half_prepared(self):
    place, path = self.copy()
    (path.parent / 'dataset_info.json').unlink()
    self.fails('data set half prepared', 'is not prepared', data_dir=place)

  def test_truncated_shard(self):
    place, path = self.copy()
    os.truncate(path, path.stat().st_size // 2)
    self.fails('shard cut short', f'file=.*{path.name}: has .* bytes, the', data_dir=place)

  def test_flipped_bit(self):
    """Small sets are always compared with their hashes."""
    place, path = self.copy()
    content = bytearray(path.read_bytes())
    content[len(content) // 4] ^= 1
    path.write_bytes(content)
    line = f'file=.*{path.name}: has SHA-256 [0-9a-f]+, the manifest says [0-9a-f]+'
    self.fails('wrong checksum', line, data_dir=place)

  def test_flipped_record(self):
    """As in a large set, whose hashes are compared where that is asked for."""
    place, path = self.copy()
    content = bytearray(path.read_bytes())
    content[len(content) // 4] ^= 1
    path.write_bytes(content)
    source = sources.open_source('digits', 'train', str(place))
    line = rf'record=digits/train\[\d+\]: unreadable in {path.name} '
    with self.assertRaisesRegex(errors.DataError, line):
      source.__getitems__(range(len(source)))

  @parameterized.named_parameters(('by_the_reader', 0), ('by_hashes', 2**30))
  def test_flips_are_caught_or_harmless(self, hash_bytes):
    """The reader's own checksums do not cover all bytes; nobody may read anything else."""
    place, path = self.copy()
    source = sources.open_source('digits', 'train', str(place))
    want = source.__getitems__(range(len(source)))
    whole, numbers, found = path.read_bytes(), random.Random(0), collections.Counter()
    for _ in range(FLIPS):
      content = bytearray(whole)
      content[numbers.randrange(len(content))] ^= 1 << numbers.randrange(8)
      path.write_bytes(content)
      try:
        source = sources.open_source('digits', 'train', str(place), hash_bytes=hash_bytes)
        got = source.__getitems__(range(len(source)))
        found['harmless' if got == want else 'wrong'] += 1
      except errors.DataError as error:
        self.assertRegex(str(error), path.name)
        found['caught'] += 1
    self.assertEqual(found['wrong'], 0)
    self.assertGreaterEqual(found['caught'], FLIPS if hash_bytes else FLIPS // 2)
    way = 'hashes' if hash_bytes else 'the reader alone'
    FOUND.append((f'{FLIPS} bit flips in ArrayRecord, {way}', dict(found)))

  def image_folder(self, name, content):
    place = self.folder / f'images-{self.id()}'
    for split, count in (('train', 8), ('test', 2)):
      for label in ('a', 'b'):
        (place / split / label).mkdir(parents=True)
        for number in range(count):
          (place / split / label / f'{number}.jpg').write_bytes(encode(noise()))
    if content is not None:
      (place / 'train' / 'a' / name).write_bytes(content)
    return place

  @parameterized.named_parameters(
    ('truncated', 'cut.jpg', encode(noise())[:400], 'image=train/a/cut.jpg: damaged'),
    ('bomb', 'big.png', bomb(), 'image=train/a/big.png: more than [0-9]+ pixels'),
    ('text', 'text.jpg', b'not an image', 'image=train/a/text.jpg: neither a JPEG nor'),
    ('empty', 'empty.jpg', b'', 'image=train/a/empty.jpg: neither a JPEG nor'),
  )
  def test_image(self, name, content, line):
    place = self.image_folder(name, content)
    row = line.partition(': ')[2]
    self.fails(f'image {row}', line, data_dir=place, **FOLDER)

  def test_odd_images_are_read(self):
    place = self.image_folder('cmyk.jpg', encode(noise('CMYK')))
    (place / 'train' / 'a' / 'png.jpg').write_bytes(encode(noise(), 'PNG'))
    (place / 'train' / 'b' / 'gray.jpg').write_bytes(encode(noise('L')))
    (place / 'train' / 'b' / 'tiny.png').write_bytes(encode(noise('RGB', (1, 1)), 'PNG'))
    for pipeline in ('resident', 'stream'):
      fields = {**FOLDER, 'data.pipeline': pipeline, 'global_batch_size': 20, 'data.workers': 0}
      text = self.completes(self.folder / f'odd-{pipeline}', data_dir=place, **fields)
      self.assertIn('20 training images, 1 steps an epoch', text)
    FOUND.append(('CMYK, PNG named .jpg, gray, 1x1', 'read, by both ways'))

  @parameterized.named_parameters((pipeline, pipeline) for pipeline in ('resident', 'stream'))
  def test_label_out_of_range(self, pipeline):
    """A prepared set whose list of class names was cut before its manifest was written."""
    place = self.image_folder('', None)
    with contextlib.redirect_stderr(io.StringIO()):  # tfds shows bars.
      path = prepared.prepare(str(place), str(self.folder / f'labels-{pipeline}'))
    path = pathlib.Path(path)
    (path / 'label.labels.txt').write_text('a\n')
    features = json.loads((path / 'features.json').read_text())
    features['featuresDict']['features']['label']['classLabel']['numClasses'] = '1'
    (path / 'features.json').write_text(json.dumps(features))
    shard_manifest.write(str(path), shard_manifest.read(str(path))['splits'])
    line = r'image=train/b/\d.jpg: label 1 is not in 0..0; correct or remove it'
    fields = {**FOLDER, 'data.pipeline': pipeline, 'data.workers': 0}
    self.fails(f'label out of range, {pipeline}', line, data_dir=path, **fields)

  def test_empty_split(self):
    place = self.image_folder('', None)
    fields = {**FOLDER, 'data.train_split': 'train[:0]'}
    self.fails('empty split', 'split=train.*: empty, of 16 images', data_dir=place, **fields)


if __name__ == '__main__':
  absltest.main()
