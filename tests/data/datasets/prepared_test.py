"""Tests of preparing: CIFAR from archives of the official layout, made here."""

import functools
import hashlib
import http.server
import io
import json
import os
import pathlib
import tarfile
import tempfile
import threading
from unittest import mock

import numpy as np
from absl.testing import absltest, parameterized
from tensorflow_datasets.core.download import checksums

from bitnet_jax import errors
from bitnet_jax.data.batches import arrays
from bitnet_jax.data.datasets import archives, builders, prepared, sources
from tests.helpers.processes import outside_environment, run_program

_NAMES = {
  'cifar10': [
    'airplane',
    'automobile',
    'bird',
    'cat',
    'deer',
    'dog',
    'frog',
    'horse',
    'ship',
    'truck',
  ],
  'cifar100': [f'fine{i}' for i in range(100)],
}
_COARSE = [f'coarse{i}' for i in range(20)]


def records(name, count, seed):
  """Random records of a CIFAR file: labels, then planes of red, green and blue."""
  rng = np.random.default_rng(seed)
  fine = rng.integers(0, 10 if name == 'cifar10' else 100, (count, 1))
  coarse = rng.integers(0, 20, (count, 0 if name == 'cifar10' else 1))
  pixels = rng.integers(0, 256, (count, 3072))
  return np.concatenate([coarse, fine, pixels], axis=1).astype(np.uint8)


def contents(name):
  """The files of an archive with 4 records a file, in their official order."""
  if name == 'cifar10':
    # The official archive too has its names end in an empty line.
    files = {'batches.meta.txt': '\n'.join(_NAMES[name]).encode() + b'\n\n'}
    files |= {f'data_batch_{i}.bin': records(name, 4, i) for i in range(1, 6)}
    return 'cifar-10-batches-bin/', files | {'test_batch.bin': records(name, 4, 6)}
  return 'cifar-100-binary/', {
    'coarse_label_names.txt': '\n'.join(_COARSE).encode() + b'\n',
    'fine_label_names.txt': '\n'.join(_NAMES[name]).encode() + b'\n',
    'train.bin': records(name, 20, 1),
    'test.bin': records(name, 4, 6),
  }


class CifarTestCase(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.archive_dir, self.data_dir = str(directory / 'archives'), str(directory / 'data')
    os.mkdir(self.archive_dir)

  def write(self, name, replace=None, url=''):
    """Writes an archive and makes its checksum the published one."""
    prefix, files = contents(name)
    file_name = {'cifar10': 'cifar-10-binary.tar.gz', 'cifar100': 'cifar-100-binary.tar.gz'}[name]
    path = os.path.join(self.archive_dir, file_name)
    with tarfile.open(path, 'w:gz') as tar:
      for key, content in reversed((files | (replace or {})).items()):
        member = tarfile.TarInfo(prefix + key)
        body = content if isinstance(content, bytes) else content.tobytes()
        member.size = len(body)
        tar.addfile(member, io.BytesIO(body))
    builder = builders.BUILDERS[name]
    info = checksums.compute_url_info(path)
    url = url or f'https://www.cs.toronto.edu/~kriz/{file_name}'
    self.enterContext(mock.patch.object(builder, 'url_infos', {url: info}))
    # tfds adds those to a table that it keeps as long as the process lives.
    self.enterContext(mock.patch.object(checksums, 'get_all_url_infos', dict))
    return path

  def prepare(self, name):
    refuse = mock.Mock(side_effect=AssertionError('touched the network'))
    with mock.patch('socket.socket.connect', refuse), mock.patch('socket.getaddrinfo', refuse):
      return prepared.prepare(name, self.data_dir, self.archive_dir)


class PreparedTest(CifarTestCase):
  @parameterized.parameters('cifar10', 'cifar100')
  def test_reads_as_plain_tfds(self, name):
    self.write(name)
    path = self.prepare(name)
    self.assertEqual(path, os.path.join(self.data_dir, name, '3.0.2'))
    # A program of somebody else, which must never see this package.
    env = outside_environment()
    done = run_program('plain_tfds_cifar', name, self.data_dir, cwd=self.archive_dir, env=env)
    self.assertEqual(done.returncode, 0, done.stderr)
    found = json.loads(done.stdout)
    self.assertEqual(found.pop('modules'), [])
    self.assertEqual(found.pop('names'), _NAMES[name])
    _, files = contents(name)
    rows = {
      'train': [files[k] for k in files if k.startswith(('data_batch', 'train'))],
      'test': [files[k] for k in files if k.startswith('test')],
    }
    num_labels = 1 if name == 'cifar10' else 2
    keys = ['coarse_label'] * (num_labels - 1) + ['id', 'image', 'label']
    expected = {}
    for split, parts in rows.items():
      for index, row in enumerate(np.concatenate(parts)):
        pixels = np.stack(np.split(row[num_labels:], 3), -1).tobytes()
        expected[f'{split}_{index:05d}'] = [
          hashlib.sha256(pixels).hexdigest(),
          int(row[num_labels - 1]),
          int(row[0]) if num_labels == 2 else -1,
          keys,
        ]
    self.assertEqual(found, expected)

  def test_opens_as_a_source(self):
    self.write('cifar10')
    self.prepare('cifar10')
    source = sources.open_source('cifar10', 'test', self.data_dir)
    self.assertEqual((source.channels, source.image_size), (3, 32))
    self.assertEqual(source.class_names, tuple(_NAMES['cifar10']))
    loaded = arrays.load_arrays(source, source.image_size)
    _, files = contents('cifar10')
    rows = {source[i].key: i for i in range(4)}
    for index, row in enumerate(files['test_batch.bin']):
      place = rows[f'test_{index:05d}']
      np.testing.assert_array_equal(loaded.image[place].transpose(2, 0, 1).ravel(), row[1:])
      self.assertEqual(loaded.label[place], row[0])

  def test_twice_reads_no_archive(self):
    archive = self.write('cifar10')
    first = self.prepare('cifar10')
    os.remove(archive)
    self.assertEqual(self.prepare('cifar10'), first)

  def test_wrong_checksum(self):
    archive = self.write('cifar10')
    expected = hashlib.sha256(pathlib.Path(archive).read_bytes()).hexdigest()
    with open(archive, 'ab') as file:
      file.write(b'x')
    got = hashlib.sha256(pathlib.Path(archive).read_bytes()).hexdigest()
    with self.assertRaises(errors.DataError) as caught:
      self.prepare('cifar10')
    self.assertEqual(
      str(caught.exception),
      f'archive={archive}: wrong checksum, expected {expected}, got {got}; '
      'fetch https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz again',
    )
    self.assertFalse(prepared.is_prepared(prepared.make_builder('cifar10', self.data_dir)))

  @parameterized.parameters(
    ('cifar10', 'c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd'),
    ('cifar100', '58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec'),
  )
  def test_official_checksum_is_enforced(self, name, checksum):
    archive = name.replace('cifar', 'cifar-') + '-binary.tar.gz'
    pathlib.Path(self.archive_dir, archive).write_bytes(b'not it')
    with self.assertRaisesRegex(errors.DataError, f'expected {checksum}, got'):
      self.prepare(name)

  def test_archive_without_published_checksum(self):
    self.write('cifar10')
    with (
      mock.patch.object(builders.Cifar10, 'url_infos', {}),
      self.assertRaisesRegex(ValueError, 'Missing checksums url'),
    ):
      self.prepare('cifar10')

  def test_archive_that_is_not_there(self):
    with self.assertRaisesRegex(
      errors.DataError, 'archive_dir=.*no file .*/cifar-100-binary.tar.gz; fetch it from https://'
    ):
      self.prepare('cifar100')

  @parameterized.named_parameters(
    ('label', {'data_batch_2.bin': np.full((1, 3073), 10, np.uint8)}, 'record 4 has label 10'),
    ('ragged', {'test_batch.bin': b'x' * 3074}, 'test_batch.bin: 3074 bytes .* 3073-byte records'),
    ('empty', {'test_batch.bin': b''}, 'test_batch.bin: 0 bytes'),
    ('names', {'batches.meta.txt': b'cat\ndog\n'}, 'batches.meta.txt has 2 names, not 10'),
  )
  def test_archive_that_is_not_cifar(self, replace, line):
    self.write('cifar10', replace)
    with self.assertRaisesRegex(errors.DataError, line):
      self.prepare('cifar10')
    self.assertFalse(prepared.is_prepared(prepared.make_builder('cifar10', self.data_dir)))

  @parameterized.parameters(KeyboardInterrupt, RuntimeError)
  def test_interrupted_then_run_again(self, kind):
    self.write('cifar10')
    real = builders.encode_png
    calls = []

    def interrupted(pixels):
      calls.append(None)
      if len(calls) == 22:  # In the second split, after the first has been written.
        raise kind
      return real(pixels)

    with mock.patch.object(builders, 'encode_png', interrupted), self.assertRaises(kind):
      self.prepare('cifar10')
    with self.assertRaisesRegex(errors.DataError, 'is not prepared'):
      sources.open_source('cifar10', 'test', self.data_dir)
    self.prepare('cifar10')
    self.assertLen(sources.open_source('cifar10', 'train', self.data_dir), 20)

  def test_killed_then_run_again(self):
    # kill -9 leaves the directory that tfds writes into.
    self.write('cifar10')
    left = pathlib.Path(self.data_dir, 'cifar10/incomplete.ABCDEF_3.0.2/cifar10-train.part')
    left.parent.mkdir(parents=True)
    left.write_bytes(b'half')
    with self.assertRaisesRegex(errors.DataError, 'is not prepared'):
      sources.open_source('cifar10', 'test', self.data_dir)
    other = left.parent.with_name('incomplete.ABCDEF_1.0.0')
    other.mkdir()
    self.prepare('cifar10')
    self.assertLen(sources.open_source('cifar10', 'train', self.data_dir), 20)
    self.assertEqual((left.parent.exists(), other.exists()), (False, True))

  def test_other_files_in_its_place(self):
    self.write('cifar10')
    pathlib.Path(self.data_dir, 'cifar10/3.0.2').mkdir(parents=True)
    with self.assertRaisesRegex(errors.DataError, 'data_dir=.*3.0.2: holds something other'):
      self.prepare('cifar10')

  def test_stored_in_another_format(self):
    self.write('cifar10')
    path = pathlib.Path(self.prepare('cifar10'), 'dataset_info.json')
    info = json.loads(path.read_text()) | {'fileFormat': 'tfrecord'}
    path.write_text(json.dumps(info))
    with self.assertRaisesRegex(errors.DataError, "'cifar10' is stored as tfrecord, not array_re"):
      sources.open_source('cifar10', 'test', self.data_dir)


class DownloadTest(CifarTestCase):
  """Downloads from a server on this machine."""

  def setUp(self):
    super().setUp()
    self.requests = requests = []

    class Handler(http.server.SimpleHTTPRequestHandler):
      def log_message(self, *unused):
        requests.append(self.command)

    handler = functools.partial(Handler, directory=self.archive_dir)
    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    self.addCleanup(server.server_close)
    self.addCleanup(server.shutdown)
    self.url = f'http://127.0.0.1:{server.server_port}/cifar-10-binary.tar.gz'
    layout = prepared.make_builder('cifar10', self.data_dir)._cifar_info._replace(url=self.url)
    self.enterContext(mock.patch.object(builders.Cifar10, '_cifar_info', layout))

  def test_downloads_once(self):
    archive = self.write('cifar10', url=self.url)
    with (
      mock.patch.object(archives, 'read_members', side_effect=RuntimeError('later')),
      self.assertRaisesRegex(RuntimeError, 'later'),
    ):
      prepared.prepare('cifar10', self.data_dir)
    self.assertEqual(self.requests, ['HEAD', 'GET'])
    os.remove(archive)
    prepared.prepare('cifar10', self.data_dir)
    self.assertEqual(self.requests, ['HEAD', 'GET'])
    self.assertLen(sources.open_source('cifar10', 'train', self.data_dir), 20)

  def test_downloads_something_else(self):
    archive = self.write('cifar10', url=self.url)
    pathlib.Path(archive).write_bytes(b'an error page')
    got = hashlib.sha256(b'an error page').hexdigest()
    with self.assertRaisesRegex(errors.DataError, f'wrong checksum, .*got {got}; fetch {self.url}'):
      prepared.prepare('cifar10', self.data_dir)

  def test_not_on_the_server(self):
    os.remove(self.write('cifar10', url=self.url))
    with self.assertRaisesRegex(errors.DataError, f'dataset={self.url}: cannot be reached .*404'):
      prepared.prepare('cifar10', self.data_dir)
    self.assertEqual(self.requests[0], 'HEAD')


if __name__ == '__main__':
  absltest.main()
