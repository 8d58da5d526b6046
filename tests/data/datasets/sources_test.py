"""Tests of opening splits and reading them."""

import concurrent.futures
import os
import pathlib
import pickle
import shutil
import tempfile

from absl.testing import absltest, parameterized

from bitnet_jax import errors
from bitnet_jax.data.batches import arrays
from bitnet_jax.data.datasets import prepared, sources
from tests.helpers.processes import run_program


class TfdsSourceTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.data_dir = cls.enterClassContext(tempfile.TemporaryDirectory())
    prepared.prepare('digits', cls.data_dir)

  def open(self, split):
    return sources.open_source('digits', split, self.data_dir)

  def keys(self, split):
    source = self.open(split)
    return [source[i].key for i in range(len(source))]

  def test_sub_splits(self):
    train, test = self.keys('train'), self.keys('test')
    self.assertEqual(self.keys('train[:1000]'), train[:1000])
    self.assertEqual(self.keys('train[1000:]'), train[1000:])
    self.assertEqual(self.keys('train[:10%]+test'), train[:144] + test)
    self.assertLen(set(train) | set(test), 1797)

  @parameterized.parameters('nope', 'train[:1438]', 'train[', '', 'train[:0]', 'train[5:2]')
  def test_bad_split(self, split):
    with self.assertRaises(errors.DataError) as caught:
      self.open(split)
    self.assertStartsWith(str(caught.exception), f"split={split}: not a split of 'digits' (")
    self.assertEndsWith(
      str(caught.exception), 'choose from train (1437 examples), test (360 examples)'
    )

  def test_many_at_once_are_the_same(self):
    source = self.open('train')
    indices = [5, 0, 1436, 5]
    self.assertEqual(source.__getitems__(indices), [source[i] for i in indices])

  @parameterized.parameters(-1, 360)
  def test_index_out_of_range(self, index):
    source = self.open('test')
    with self.assertRaises(IndexError):
      source[index]
    with self.assertRaises(IndexError):
      source.__getitems__([0, index])

  def test_pickles_without_its_open_files(self):
    source = self.open('test[:50]')
    source[0]
    pickled = pickle.dumps(source)
    self.assertLess(len(pickled), 1000)
    copy = pickle.loads(pickled)  # noqa: S301
    self.assertEqual([copy[i] for i in range(50)], [source[i] for i in range(50)])

  def test_threads_may_share_it(self):
    source = self.open('train')
    expected = [source[i] for i in range(len(source))]
    fresh = self.open('train')
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
      self.assertEqual(list(pool.map(fresh.__getitem__, range(len(source)))), expected)

  def test_damaged_file_names_the_record(self):
    with tempfile.TemporaryDirectory() as copy:
      shutil.copytree(self.data_dir, copy, dirs_exist_ok=True)
      [path] = pathlib.Path(copy).glob('digits/*/digits-test.array_record*')
      content = bytearray(path.read_bytes())
      content[len(content) // 4] ^= 1
      path.write_bytes(content)
      with self.assertRaisesRegex(
        errors.DataError,
        r'record=digits/test\[\d+\]: unreadable in digits-test.array_record-0.* \(.*remov',
      ):
        arrays.load_arrays(sources.open_source('digits', 'test', copy), 8)

  def test_missing_file_names_it(self):
    with tempfile.TemporaryDirectory() as copy:
      shutil.copytree(self.data_dir, copy, dirs_exist_ok=True)
      [path] = pathlib.Path(copy).glob('digits/*/digits-test.array_record*')
      path.unlink()
      with self.assertRaisesRegex(errors.DataError, path.name):
        sources.open_source('digits', 'test', copy)[0]

  def test_unknown_name(self):
    with self.assertRaisesRegex(errors.DataError, 'dataset=mnist: unknown .* digits, cifar10'):
      sources.open_source('mnist', 'train', self.data_dir)


class UnpreparedTest(parameterized.TestCase):
  def test_fails_fast_without_network_or_tensorflow(self):
    names = ('digits', 'cifar10', 'cifar100', 'imagenet2012')
    with tempfile.TemporaryDirectory() as empty:
      done = run_program('opens_without_network', empty, *names)
      self.assertEqual(done.stderr, '')
      *lines, tensorflow = done.stdout.splitlines()
      for name, line, seconds in zip(names, lines[::2], lines[1::2], strict=True):
        self.assertEqual(
          line,
          f'config.data.dir={empty}: {name!r} is not prepared; '
          f'run python -m bitnet_jax.prepare --dataset={name} --data_dir={empty}',
        )
        self.assertLess(float(seconds), 2)
      self.assertEqual(tensorflow, '[]')
      self.assertEmpty(os.listdir(empty))


class TensorFlowTest(absltest.TestCase):
  def test_stays_unloaded_on_every_path(self):
    with tempfile.TemporaryDirectory() as directory:
      root = os.path.join(directory, 'folder', 'train', 'a')
      os.makedirs(root)
      done = run_program('reads_every_source', directory, root)
    self.assertEqual(
      done.stdout.splitlines(), ['(5, 6, 6, 1) (3,)', '(1, 6, 6, 3) (3,)', '[]'], done.stderr
    )


class FolderSourceTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    for path in ('train/b/1.png', 'train/a/2.jpg', 'test/b/3.png'):
      (self.root / path).parent.mkdir(parents=True, exist_ok=True)
      (self.root / path).write_bytes(path.encode())

  def test_reads_bytes_as_they_are(self):
    source = sources.open_source('folder', 'train', str(self.root))
    self.assertEqual(source[0], sources.Example('train/a/2.jpg', b'train/a/2.jpg', 0))
    self.assertEqual(
      source.__getitems__([1]), [sources.Example('train/b/1.png', b'train/b/1.png', 1)]
    )
    self.assertEqual((source.channels, source.image_size, len(source)), (3, 0, 2))
    self.assertEqual(source.labels.tolist(), [0, 1])
    with self.assertRaises(IndexError):
      source[2]

  def test_pickles(self):
    source = sources.open_source('folder', 'test', str(self.root))
    copy = pickle.loads(pickle.dumps(source))  # noqa: S301
    self.assertEqual(copy[0], sources.Example('test/b/3.png', b'test/b/3.png', 1))
    self.assertEqual(copy.class_names, ('a', 'b'))

  def test_fingerprint_is_of_names_and_sizes(self):
    def fingerprint(split='train'):
      return sources.open_source('folder', split, str(self.root)).fingerprint

    first = fingerprint()
    self.assertEqual(fingerprint(), first)
    self.assertNotEqual(fingerprint('test'), first)
    (self.root / 'train/b/1.png').write_bytes(b'another, longer image')
    self.assertNotEqual(fingerprint(), first)
    (self.root / 'train/b/1.png').write_bytes(b'train/b/1.png')
    self.assertEqual(fingerprint(), first)
    (self.root / 'train/b/1.png').rename(self.root / 'train/b/2.png')
    self.assertNotEqual(fingerprint(), first)

  def test_file_that_vanished(self):
    source = sources.open_source('folder', 'test', str(self.root))
    (self.root / 'test/b/3.png').unlink()
    with self.assertRaisesRegex(errors.DataError, 'image=test/b/3.png: unreadable .No such file'):
      source[0]


if __name__ == '__main__':
  absltest.main()
