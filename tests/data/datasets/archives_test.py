"""Tests of reading tar archives: what is asked for, and nothing that leaves them."""

import io
import pathlib
import tarfile
import tempfile
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized

from bitnet_jax import errors
from bitnet_jax.data.datasets import archives


class ArchivesTest(parameterized.TestCase):
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
    self.assertEqual(archives.read_members(self.archive, ['d/y']), {'d/y': b'2'})

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
      archives.read_members(self.archive, ['good'])

  def test_refuses_a_member_too_large(self):
    self.write(('good', tarfile.REGTYPE, b'12345'))
    with mock.patch.object(archives, 'MAX_MEMBER_BYTES', 5):
      self.assertLen(archives.read_members(self.archive, ['good']), 1)
    with (
      mock.patch.object(archives, 'MAX_MEMBER_BYTES', 4),
      self.assertRaisesRegex(errors.DataError, 'has 5 bytes'),
    ):
      archives.read_members(self.archive, ['good'])

  def test_lacks_a_member(self):
    self.write(('good', tarfile.REGTYPE, b'1'))
    with self.assertRaisesRegex(errors.DataError, 'has no other; fetch the binary version'):
      archives.read_members(self.archive, ['good', 'other'])

  @parameterized.parameters(0, 10, 0.5, 0.9)
  def test_damaged(self, cut):
    noise = np.random.default_rng(0).bytes(5000)
    self.write(('good', tarfile.REGTYPE, noise))
    whole = pathlib.Path(self.archive).read_bytes()
    length = cut if isinstance(cut, int) else int(len(whole) * cut)
    pathlib.Path(self.archive).write_bytes(whole[:length])
    with self.assertRaisesRegex(errors.DataError, 'unreadable|has no good'):
      archives.read_members(self.archive, ['good'])


if __name__ == '__main__':
  absltest.main()
