"""ILSVRC12 from archives of the official layout, made here."""

import hashlib
import io
import json
import os
import pathlib
import tarfile
import tempfile
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized
from PIL import Image
from tensorflow_datasets.core.download import checksums

from bitnet_jax import errors
from bitnet_jax.data.datasets import imagenet, prepared, shard_manifest, sources
from bitnet_jax.data.images import decode
from tests.helpers.processes import outside_environment, run_program

_CLASSES = ('n01440764', 'n01443537', 'n15075141')
_RED = (200, 30, 60)


def encode(image, kind='JPEG', **options):
  file = io.BytesIO()
  image.save(file, kind, **options)
  return file.getvalue()


def jpeg(seed):
  coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), np.uint8)
  return encode(Image.fromarray(coarse).resize((40 + seed, 30)))


def tar(members):
  file = io.BytesIO()
  with tarfile.open(fileobj=file, mode='w') as archive:
    for name, content in members:
      member = tarfile.TarInfo(name)
      if content is None:
        member.type, member.linkname = tarfile.SYMTYPE, '/etc/passwd'
      else:
        member.size = len(content)
      archive.addfile(member, io.BytesIO(content or b''))
  return file.getvalue()


class ImagenetTestCase(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.archive_dir, self.data_dir = directory / 'archives', str(directory / 'data')
    self.archive_dir.mkdir()
    solid = Image.new('RGB', (24, 16), _RED)
    self.train = {
      'n01440764': {f'n01440764_{i}.JPEG': jpeg(i) for i in range(3)},
      'n01443537': {
        'n01443537_0.JPEG': encode(solid.convert('CMYK')),
        'n01443537_1.JPEG': encode(solid, 'PNG'),
        'n01443537_2.JPEG': encode(Image.new('L', (24, 16), 90)),
      },
      'n15075141': {'n15075141_9.JPEG': jpeg(9)},
    }
    self.validation = {f'ILSVRC2012_val_{n:08d}.JPEG': jpeg(n % 20) for n in (1, 2, 7, 50000)}

  def write(self, train=None, validation=None, official=True):
    """Writes both archives; `official` makes their checksums the published ones."""
    inner = [(f'{name}.tar', tar(files.items())) for name, files in self.train.items()]
    contents = {
      imagenet.TRAIN: tar(inner + (train or [])),
      imagenet.VALIDATION: tar([*self.validation.items(), *(validation or [])]),
    }
    infos = {}
    for name, content in contents.items():
      (self.archive_dir / name).write_bytes(content)
      infos[f'http://host/{name}'] = checksums.compute_url_info(self.archive_dir / name)
    if official:
      self.enterContext(mock.patch.object(imagenet.Imagenet2012, 'url_infos', infos))

  def prepare(self, **options):
    refuse = mock.Mock(side_effect=AssertionError('touched the network'))
    with mock.patch('socket.socket.connect', refuse), mock.patch('socket.getaddrinfo', refuse):
      return prepared.prepare('imagenet2012', self.data_dir, str(self.archive_dir), **options)


class PrepareTest(ImagenetTestCase):
  def test_reads_as_plain_tfds(self):
    self.write()
    self.assertEqual(self.prepare(), os.path.join(self.data_dir, 'imagenet2012', '5.1.0'))
    # A program of somebody else, which must never see this package.
    env = outside_environment()
    done = run_program('plain_tfds_imagenet', self.data_dir, cwd=self.archive_dir, env=env)
    self.assertEqual(done.returncode, 0, done.stderr)
    found = json.loads(done.stdout)
    self.assertEqual(found.pop('modules'), [])
    names = found.pop('names')
    self.assertLen(names, 1000)
    self.assertEqual(names, sorted(names))
    labels = {f: names.index(c) for c, files in self.train.items() for f in files}
    # The first, second, seventh and last line of ILSVRC2012_validation_ground_truth, by WordNet.
    truth = ('n01751748', 'n09193705', 'n02346627', 'n02437616')
    labels |= {f: names.index(c) for f, c in zip(self.validation, truth, strict=True)}
    self.assertEqual({name: entry[0] for name, entry in found.items()}, labels)
    originals = {f: c for files in self.train.values() for f, c in files.items()} | self.validation
    repaired = ('n01443537_0.JPEG', 'n01443537_1.JPEG')
    for name, (_, shape, color, digest) in found.items():
      if name in repaired:
        self.assertEqual(shape, [16, 24, 3])
        np.testing.assert_allclose(color, _RED, atol=3)
      else:
        self.assertEqual(digest, hashlib.sha256(originals[name]).hexdigest(), name)

  def test_opens_as_a_source_with_a_manifest(self):
    self.write()
    path = self.prepare()
    source = sources.open_source('imagenet2012', 'train', self.data_dir, hash_bytes=1e6)
    self.assertEqual((len(source), source.channels, source.image_size), (7, 3, 0))
    self.assertEqual(shard_manifest.read(path)['splits'], {'train': 7, 'validation': 4})
    for index in range(7):
      self.assertEqual(decode.decode(source[index].encoded, 3, '').shape[2], 3)

  def test_again_reads_no_archive(self):
    self.write()
    first = self.prepare()
    (self.archive_dir / imagenet.TRAIN).unlink()
    self.assertEqual(self.prepare(), first)

  def test_unofficial_archives_are_taken_when_asked_for(self):
    self.write(official=False)
    with self.assertRaisesRegex(
      errors.DataError, r'archive=.*img_train.tar: \d+ bytes, the official one has 147897477120; '
    ):
      self.prepare()
    self.prepare(unofficial=True)

  def test_wrong_checksum(self):
    self.write()
    path = self.archive_dir / imagenet.VALIDATION
    content = bytearray(path.read_bytes())
    content[700] ^= 1
    path.write_bytes(content)
    with self.assertRaisesRegex(
      errors.DataError, rf'archive={path}: wrong checksum, expected \w+, got \w+; fetch it again'
    ):
      self.prepare()
    self.assertFalse(os.path.exists(os.path.join(self.data_dir, 'imagenet2012', '5.1.0')))

  @parameterized.parameters(imagenet.TRAIN, imagenet.VALIDATION)
  def test_missing_archive(self, name):
    self.write()
    (self.archive_dir / name).unlink()
    with self.assertRaisesRegex(errors.DataError, f'archive_dir=.*no file .*{name}; fetch it from'):
      self.prepare()

  @parameterized.named_parameters(
    (
      'class',
      [('n00000001.tar', tar([('x.JPEG', jpeg(1))]))],
      [],
      "member 'n00000001.tar' is not a class",
    ),
    ('image', [], [('ILSVRC2012_val_00050001.JPEG', b'')], 'is not a validation image'),
    ('name', [], [('cat.JPEG', b'')], "member 'cat.JPEG' is not a validation image"),
    ('absolute', [('/n01440764.tar', b'')], [], 'leaves the archive'),
    ('link', [('n01440764.tar', None)], [], 'is a link or a device'),
    ('parent', [('n04330267.tar', tar([('../x', b'')]))], [], "'../x' leaves the archive"),
    ('inner', [('n04330267.tar', tar([('x', None)]))], [], "'x' is a link or a device"),
    ('no_tar', [('n04330267.tar', b'no archive' * 99)], [], 'unreadable'),
    ('cut', [('n04330267.tar', tar([('x', jpeg(1) * 9)])[:1500])], [], 'unreadable'),
    ('text', [('n04330267.tar', tar([('x.JPEG', b'text')]))], [], 'image=x.JPEG: neither a JPEG'),
    (
      'damaged',
      [('n04330267.tar', tar([('x.JPEG', jpeg(1)[:30])]))],
      [],
      'image=x.JPEG: damaged .*; fetch the archive again',
    ),
    (
      'twice',
      [('n04330267.tar', tar([('n01440764_0.JPEG', jpeg(5))]))],
      [],
      'two images bear the same name',
    ),
  )
  def test_archive_that_is_not_ilsvrc12(self, train, validation, line):
    self.write(train, validation)
    with self.assertRaisesRegex(errors.DataError, line):
      self.prepare()
    self.assertFalse(os.path.exists(os.path.join(self.data_dir, 'imagenet2012', '5.1.0')))
    self.assertFalse(os.path.exists(os.path.join(self.data_dir, '..', 'x')))

  def test_official_checksums(self):
    infos = imagenet.Imagenet2012.url_infos
    sums = {os.path.basename(url): info.checksum for url, info in infos.items()}
    self.assertStartsWith(sums[imagenet.TRAIN], 'b08200a27a8e34218a0e58fde36b0fe8f73bc377f4ac')
    self.assertStartsWith(sums[imagenet.VALIDATION], 'c7e06a6c0baccf06d8dbeb6577d71efff84673a5')


if __name__ == '__main__':
  absltest.main()
