"""Tests of the builders' parts: PNG, archives, the digits."""

import io
import pathlib
import tarfile
import tempfile
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized
from PIL import Image
from sklearn import datasets

from bitnet_jax import errors
from bitnet_jax.data import builders, decode, prepared, sources


class EncodePngTest(parameterized.TestCase):
  @parameterized.parameters(((5, 7),), ((5, 7, 3),))
  def test_loses_nothing(self, shape):
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    encoded = builders.encode_png(pixels)
    with Image.open(encoded) as image:
      self.assertEqual(image.format, 'PNG')
      np.testing.assert_array_equal(np.asarray(image), pixels)


class ReadMembersTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.archive = str(pathlib.Path(self.enterContext(tempfile.TemporaryDirectory())) / 'a.tar.gz')

  def write(self, *members):
    with tarfile.open(self.archive, 'w:gz') as tar:
      for name, kind, content in members:
        member = tarfile.TarInfo(name)
        member.type = kind
        member.size = len(content)
        member.linkname = 'etc/passwd' if kind in (tarfile.SYMTYPE, tarfile.LNKTYPE) else ''
        tar.addfile(member, io.BytesIO(content))

  def test_reads_what_is_asked_for(self):
    self.write(
      ('d', tarfile.DIRTYPE, b''), ('d/x', tarfile.REGTYPE, b'1'), ('d/y', tarfile.REGTYPE, b'2')
    )
    self.assertEqual(builders.read_members(self.archive, ['d/y']), {'d/y': b'2'})

  @parameterized.parameters(
    ('/etc/x', tarfile.REGTYPE, "member '/etc/x' leaves the archive"),
    ('d/../../x', tarfile.REGTYPE, 'leaves the archive'),
    ('link', tarfile.SYMTYPE, "member 'link' is a link or a device"),
    ('hard', tarfile.LNKTYPE, "member 'hard' is a link or a device"),
    ('pipe', tarfile.FIFOTYPE, 'is a link or a device'),
    ('disk', tarfile.BLKTYPE, 'is a link or a device'),
  )
  def test_refuses(self, name, kind, line):
    self.write(('good', tarfile.REGTYPE, b'1'), (name, kind, b''))
    with self.assertRaisesRegex(errors.DataError, f'archive={self.archive}: .*{line}; fetch'):
      builders.read_members(self.archive, ['good'])

  def test_refuses_a_member_too_large(self):
    self.write(('good', tarfile.REGTYPE, b'12345'))
    with mock.patch.object(builders, '_MAX_MEMBER_BYTES', 5):
      self.assertLen(builders.read_members(self.archive, ['good']), 1)
    with (
      mock.patch.object(builders, '_MAX_MEMBER_BYTES', 4),
      self.assertRaisesRegex(errors.DataError, 'has 5 bytes'),
    ):
      builders.read_members(self.archive, ['good'])

  def test_lacks_a_member(self):
    self.write(('good', tarfile.REGTYPE, b'1'))
    with self.assertRaisesRegex(errors.DataError, 'has no other; fetch the binary version'):
      builders.read_members(self.archive, ['good', 'other'])

  @parameterized.parameters(0, 10, 0.5, 0.9)
  def test_damaged(self, cut):
    noise = np.random.default_rng(0).bytes(5000)
    self.write(('good', tarfile.REGTYPE, noise))
    whole = pathlib.Path(self.archive).read_bytes()
    length = cut if isinstance(cut, int) else int(len(whole) * cut)
    pathlib.Path(self.archive).write_bytes(whole[:length])
    with self.assertRaisesRegex(errors.DataError, 'unreadable|has no good'):
      builders.read_members(self.archive, ['good'])


class DigitsTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.data_dir = cls.enterClassContext(tempfile.TemporaryDirectory())
    prepared.prepare('digits', cls.data_dir)

  def test_every_image_label_and_place(self):
    digits = datasets.load_digits()
    # 255 / 16 a level: 16 is white, 8 is 127.5, rounded to even.
    expected = np.round(digits.images * 255 / 16)
    seen = set()
    for split, first, count in (('train', 0, 1437), ('test', 1437, 360)):
      source = sources.open_source('digits', split, self.data_dir)
      self.assertLen(source, count)
      for index in range(count):
        example = source[index]
        row = first + int(example.key.removeprefix(f'{split}_'))
        pixels = decode.decode(example.encoded, 1, example.key)
        np.testing.assert_array_equal(pixels[..., 0], expected[row])
        self.assertEqual(example.label, digits.target[row])
        seen.add(row)
    self.assertEqual(seen, set(range(1797)))

  def test_what_it_says_of_itself(self):
    source = sources.open_source('digits', 'test', self.data_dir)
    self.assertEqual((source.channels, source.image_size), (1, 8))
    self.assertEqual(source.class_names, tuple('0123456789'))

  def test_is_stored_in_mixed_order(self):
    source = sources.open_source('digits', 'train', self.data_dir)
    self.assertNotEqual([source[i].key for i in range(3)], [f'train_0000{i}' for i in range(3)])


if __name__ == '__main__':
  absltest.main()
