"""The manifest of a prepared data set notices what happened to the shards."""

import json
import pathlib
import shutil
import tempfile

from absl.testing import absltest, parameterized

from bitnet_jax import errors
from bitnet_jax.data import prepared, shards, sources


class ShardsTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.whole = cls.enterClassContext(tempfile.TemporaryDirectory())
    prepared.prepare('digits', cls.whole)

  def setUp(self):
    super().setUp()
    self.data_dir = self.enterContext(tempfile.TemporaryDirectory())
    shutil.copytree(self.whole, self.data_dir, dirs_exist_ok=True)
    self.path = pathlib.Path(self.data_dir, 'digits', '1.0.0')
    [self.shard] = self.path.glob('digits-test.array_record*')

  def open(self, **options):
    return sources.open_source('digits', 'test', self.data_dir, **options)

  def test_holds_counts_sizes_and_hashes(self):
    content = json.loads((self.path / shards.NAME).read_text())
    self.assertEqual(content['splits'], {'train': 1437, 'test': 360})
    self.assertLen(content['files'], 2)
    entry = content['files'][self.shard.name]
    self.assertEqual(entry['bytes'], self.shard.stat().st_size)
    self.assertEqual(entry['sha256'], shards.sha256(self.shard))

  def test_flipped_bit_is_found_when_asked_for(self):
    content = bytearray(self.shard.read_bytes())
    content[len(content) // 2] ^= 4
    self.shard.write_bytes(content)
    self.open()
    size = sum(path.stat().st_size for path in self.path.glob('*.array_record*'))
    self.open(hash_bytes=size - 1)
    with self.assertRaisesRegex(
      errors.DataError, f'file={self.shard}: has SHA-256 .*; remove the data set'
    ):
      self.open(hash_bytes=size)

  def test_asked_to_stop_it_reads_no_other_shard(self):
    [last] = self.path.glob('digits-train.array_record*')
    content = bytearray(last.read_bytes())
    content[len(content) // 2] ^= 4
    last.write_bytes(content)
    asked = []
    self.open(hash_bytes=1e9, stop=lambda: asked.append(None) or True)
    self.assertLen(asked, 1)
    with self.assertRaisesRegex(errors.DataError, f'file={last}: has SHA-256'):
      self.open(hash_bytes=1e9, stop=lambda: False)
    self.open(stop=self.fail)

  def test_other_size_is_always_found(self):
    with self.shard.open('ab') as file:
      file.write(b'x')
    with self.assertRaisesRegex(errors.DataError, r'has \d+ bytes, the manifest says'):
      self.open()

  def test_missing_shard(self):
    self.shard.unlink()
    with self.assertRaisesRegex(errors.DataError, f'file={self.shard}: is missing'):
      self.open()

  def test_shard_too_many(self):
    shutil.copy(self.shard, f'{self.shard}x')
    with self.assertRaisesRegex(errors.DataError, 'is not in the manifest'):
      self.open()

  def test_other_count(self):
    path = self.path / shards.NAME
    path.write_text(path.read_text().replace('360', '361'))
    with self.assertRaisesRegex(errors.DataError, 'test has 360 examples, the manifest says 361'):
      self.open()

  @parameterized.parameters(
    '',
    '{}',
    '[]',
    '[' * 100_000,
    '{"format": 2, "splits": {}, "files": {}}',
    '{"format": 1, "splits": {}, "files": []}',
    '{"format": 1, "splits": [], "files": {}}',
    '{"format": 1, "splits": {"test": "360"}, "files": {}}',
    '{"format": 1, "splits": {}, "files": {"a": []}}',
    '{"format": 1, "splits": {}, "files": {"a": {"bytes": Infinity, "sha256": ""}}}',
    '{"format": 1, "splits": {}, "files": {"a": {"bytes": 1}}}',
    '{"format": 1, "splits": {}, "files": {"../a": {"bytes": 1, "sha256": ""}}}',
  )
  def test_damaged_manifest(self, text):
    (self.path / shards.NAME).write_text(text)
    with self.assertRaisesRegex(errors.DataError, 'manifest=.*cannot be read .*; delete it and'):
      self.open()

  def test_missing_manifest_is_written_by_preparing_again(self):
    before = (self.path / shards.NAME).read_text()
    (self.path / shards.NAME).unlink()
    with self.assertRaisesRegex(errors.DataError, 'manifest=.*no such file; run python -m'):
      self.open()
    prepared.prepare('digits', self.data_dir)
    self.assertEqual((self.path / shards.NAME).read_text(), before)


if __name__ == '__main__':
  absltest.main()
