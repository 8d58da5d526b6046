"""Tests of listing a folder of images."""

import os
import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest, parameterized

from bitnet_jax import errors
from bitnet_jax.data.datasets import folder


class FolderTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.root = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

  def touch(self, *paths):
    for path in paths:
      (self.root / path).parent.mkdir(parents=True, exist_ok=True)
      (self.root / path).touch()

  def many(self, per_class=200):
    self.touch(*(f'train/{c}/{i:03d}.png' for c in 'abc' for i in range(per_class)))

  def test_sorted_by_class_then_name(self):
    self.touch('train/b/2.png', 'train/b/10.PNG', 'train/a/x.JPG', 'train/C/y.Jpeg')
    listing = folder.list_images(str(self.root), 'train')
    self.assertEqual(listing.class_names, ('C', 'a', 'b'))
    self.assertEqual(
      listing.paths, ('train/C/y.Jpeg', 'train/a/x.JPG', 'train/b/10.PNG', 'train/b/2.png')
    )
    self.assertEqual(listing.labels, (0, 1, 2, 2))

  def test_sizes_are_those_of_the_files(self):
    self.touch('train/a/1.png', 'train/a/2.png', 'train/b/3.png')
    for number, path in enumerate(('a/1.png', 'a/2.png', 'b/3.png')):
      (self.root / 'train' / path).write_bytes(b'x' * number)
    (self.root / 'train/b/4.png').symlink_to(self.root / 'train/a/2.png')
    self.assertEqual(folder.list_images(str(self.root), 'train').sizes, (0, 1, 2, 1))
    kept = folder.list_images(str(self.root), 'train[:50%]')
    self.assertEqual(kept.sizes, tuple((self.root / path).stat().st_size for path in kept.paths))

  def test_order_is_not_the_file_systems(self):
    self.many(20)
    expected = folder.list_images(str(self.root), 'train[:50%]')
    real = os.scandir

    class Reversed:
      def __init__(self, path):
        self.entries = sorted(real(path), key=lambda e: e.name, reverse=True)

      def __enter__(self):
        return iter(self.entries)

      def __exit__(self, *unused):
        pass

    with mock.patch.object(os, 'scandir', Reversed):
      self.assertEqual(folder.list_images(str(self.root), 'train[:50%]'), expected)

  def test_passes_over_what_is_no_image(self):
    self.touch(
      'train/a/1.png',
      'train/a/.hidden.png',
      'train/a/notes.txt',
      'train/a/png',
      'train/a/inner/2.png',
      'train/.git/3.png',
      'train/loose.png',
    )
    (self.root / 'train/a/directory.png').mkdir()
    os.mkfifo(self.root / 'train/a/pipe.png')  # Opening it would wait for ever.
    (self.root / 'train/a/dangling.png').symlink_to('nowhere')
    (self.root / 'train/a/link.png').symlink_to('1.png')
    listing = folder.list_images(str(self.root), 'train')
    self.assertEqual(listing.paths, ('train/a/1.png', 'train/a/link.png'))
    self.assertEqual(listing.class_names, ('a',))

  def test_labels_of_other_splits_are_those_of_train(self):
    self.touch('train/a/1.png', 'train/b/1.png', 'train/c/1.png', 'val/c/1.png', 'val/b/1.png')
    listing = folder.list_images(str(self.root), 'val')
    self.assertEqual(listing.class_names, ('a', 'b', 'c'))
    self.assertEqual(listing.paths, ('val/b/1.png', 'val/c/1.png'))
    self.assertEqual(listing.labels, (1, 2))

  @parameterized.named_parameters(
    ('no_split', 'test', "no sub-directory 'test' \\(there: train\\); lay it out as test/CLASS"),
    ('no_classes', 'empty', 'folder=.*/empty: no class directories in it; lay it out'),
    ('unknown_class', 'odd', "folder=.*/odd/z: class 'z' is not among the 1 of 'train'; .*train/z"),
    ('no_images', 'bare', 'folder=.*/bare/a: no images .* in it; add some or remove'),
    ('outside', '../train', "split='../train': not a split"),
    ('parent', '..', "split='..': not a split"),
    ('sum', 'train+test', "split='train\\+test': not a split of a folder; write it as"),
    ('half_bracket', 'train[:5', 'not a split'),
    ('word', 'train[a:b]', 'not a split'),
    ('nothing', '', "split='': not a split"),
    ('too_many', 'train[:7]', 'split=7: beyond the 1 images'),
    ('too_much', 'train[:101%]', 'split=101%: beyond the 1 images'),
    ('empty_slice', 'train[:0]', 'split=train\\[:0\\]: empty, of 1 images'),
    ('backwards', 'train[1:0]', 'empty'),
  )
  def test_errors(self, split, line):
    self.touch('train/a/1.png', 'odd/z/1.png', 'bare/a/1.webp')
    (self.root / 'empty').mkdir()
    if split == 'test':
      for name in ('empty', 'odd', 'bare'):
        (self.root / name).rename(self.root / f'.{name}')
    with self.assertRaisesRegex(errors.DataError, line):
      folder.list_images(str(self.root), split)

  def test_no_such_folder(self):
    with self.assertRaisesRegex(errors.DataError, 'config.data.dir=.*/absent.*no such directory'):
      folder.list_images(str(self.root / 'absent'), 'train')

  def test_classes_need_train(self):
    self.touch('test/a/1.png')
    with self.assertRaisesRegex(errors.DataError, "no sub-directory 'train' \\(there: test\\)"):
      folder.list_images(str(self.root), 'test')

  @parameterized.parameters(
    ('train[:90%]', 'train[90%:]', 540),
    ('train[:500]', 'train[500:]', 500),
    ('train[:-100]', 'train[-100:]', 500),
    ('train[:-25%]', 'train[-25%:]', 450),
    ('train[:33%]', 'train[33%:]', 198),
  )
  def test_slices_divide_the_split(self, first, second, length):
    self.many()
    whole = folder.list_images(str(self.root), 'train')
    parts = [folder.list_images(str(self.root), split) for split in (first, second)]
    self.assertLen(parts[0].paths, length)
    self.assertEqual(sorted(parts[0].paths + parts[1].paths), list(whole.paths))
    for part in parts:
      self.assertEqual(list(part.paths), sorted(part.paths))
      self.assertEqual(
        [whole.class_names[label] for label in part.labels],
        [path.split('/')[1] for path in part.paths],
      )

  def test_slice_has_all_classes_and_is_reproducible(self):
    self.many()
    tenth = folder.list_images(str(self.root), 'train[:10%]')
    shares = [tenth.labels.count(label) for label in range(3)]
    self.assertEqual(shares, [18, 19, 23])
    self.assertEqual(tenth.paths[:3], ('train/a/006.png', 'train/a/016.png', 'train/a/020.png'))


if __name__ == '__main__':
  absltest.main()
