"""Lists a folder of images as a data set: `SPLIT/CLASS/NAME.png`, `.jpg` or `.jpeg`.

The sub-directories of a split are its classes, and the regular files directly in a class with one
of these suffixes, in any case, are its images. Names that begin with a dot, other files, and
directories inside a class are ignored; a link counts as its target.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import os
import re
from collections.abc import Sequence

from bitnet_jax import errors

SUFFIXES = ('.jpg', '.jpeg', '.png')
TRAIN = 'train'  # The split whose directories name the classes.

_THREADS = 16
_SPLIT = re.compile(r'([^\[\]+/\\]+)(?:\[(-?\d{1,12}%?)?:(-?\d{1,12}%?)?\])?')


@dataclasses.dataclass(frozen=True)
class Listing:
  """Holds the list of a split's images.

  Attributes:
    class_names: sorted names of the directories in `train`.
    paths: relative to the folder, '/' between parts, sorted by class, then name.
    labels: labels of the paths, indices into `class_names`.
    sizes: sizes of the files, in bytes; -1 where the file system gives none.
  """

  class_names: tuple[str, ...]
  paths: tuple[str, ...]
  labels: tuple[int, ...]
  sizes: tuple[int, ...]


def list_images(root: str, split: str) -> Listing:
  """Lists a split of a folder, in the same order on every file system.

  Args:
    root: the folder; '~' is expanded.
    split: a sub-directory ('train'), or a slice of a sub-directory in tfds's syntax
      ('train[:90%]', 'train[-500:]', 'train[10%:20%]'). A slice is cut from the images in the
      order of the SHA-256 of their paths, so a slice has all classes in about the same shares,
      slices with a common boundary divide the split, and the cut is the same on every machine.

  Returns:
    The listing, never empty.

  Raises:
    DataError: the folder or the split does not exist, has no classes, has a class without images
      or one that `train` lacks, or the slice is malformed or empty.
  """
  directory, start, stop = _parse_split(split)
  root = os.path.expanduser(root)
  if not os.path.isdir(root):
    raise errors.DataError('config.data.dir', repr(root), 'no such directory', 'name a folder')
  class_names = _class_names(root, TRAIN)
  labels_of = {name: label for label, name in enumerate(class_names)}
  paths, labels, sizes = [], [], []
  names = class_names if directory == TRAIN else _class_names(root, directory)
  places = [os.path.join(root, directory, name) for name in names]
  # Threads, because a file server answers separately for the size of each file.
  with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
    listed = list(pool.map(_images, places))
  for name, where, files in zip(names, places, listed, strict=True):
    if name not in labels_of:
      problem = f'class {name!r} is not among the {len(class_names)} of {TRAIN!r}'
      raise errors.DataError('folder', where, problem, f'remove it or add {TRAIN}/{name}')
    if not files:
      problem = f'no images ({", ".join(SUFFIXES)}) directly in it'
      raise errors.DataError('folder', where, problem, 'add some or remove the directory')
    paths += [f'{directory}/{name}/{file}' for file, _ in files]
    labels += [labels_of[name]] * len(files)
    sizes += [size for _, size in files]
  kept = _slice(paths, start, stop)
  if not kept:
    raise errors.DataError('split', split, f'empty, of {len(paths)} images', 'widen the slice')
  return Listing(
    class_names,
    tuple(paths[i] for i in kept),
    tuple(labels[i] for i in kept),
    tuple(sizes[i] for i in kept),
  )


def _parse_split(split: str) -> tuple[str, str, str]:
  match = _SPLIT.fullmatch(split)
  if not match or match[1] in ('.', '..'):
    remedy = "write it as 'train', 'train[:90%]' or 'train[-500:]'"
    raise errors.DataError('split', repr(split), 'not a split of a folder', remedy)
  return match[1], match[2] or '', match[3] or ''


def _class_names(root: str, split: str) -> tuple[str, ...]:
  where = os.path.join(root, split)
  if not os.path.isdir(where):
    others = ', '.join(_directories(root)) or 'none'
    problem = f'no sub-directory {split!r} (there: {others})'
    raise errors.DataError('config.data.dir', root, problem, f'lay it out as {split}/CLASS/*.jpg')
  names = _directories(where)
  if not names:
    problem = 'no class directories in it'
    raise errors.DataError('folder', where, problem, f'lay it out as {split}/CLASS/*.jpg')
  return names


def _directories(where: str) -> tuple[str, ...]:
  with os.scandir(where) as entries:
    return tuple(sorted(e.name for e in entries if e.name[0] != '.' and e.is_dir()))


def _images(where: str) -> list[tuple[str, int]]:
  """Returns (name, size) of the images in a directory, sorted."""
  with os.scandir(where) as entries:
    return sorted(
      (e.name, _size(e))
      for e in entries
      if e.name[0] != '.' and e.name.lower().endswith(SUFFIXES) and e.is_file()
    )


def _size(entry: os.DirEntry[str]) -> int:
  try:
    return entry.stat().st_size
  except OSError:  # Opening the file will report why.
    return -1


def _slice(paths: Sequence[str], start: str, stop: str) -> Sequence[int]:
  """Returns the indices of the paths in `[start:stop]` of their hashed order, ascending."""
  if not start and not stop:
    return range(len(paths))
  hashed = sorted(range(len(paths)), key=lambda i: hashlib.sha256(os.fsencode(paths[i])).digest())
  first = _boundary(start or '0', len(paths))
  last = _boundary(stop, len(paths)) if stop else len(paths)
  return sorted(hashed[first:last])


def _boundary(text: str, count: int) -> int:
  """Returns a position in 0..count; negative numbers count from the end, % is rounded."""
  number, percent = int(text.rstrip('%')), text.endswith('%')
  position = round(count * number / 100) if percent else number
  if abs(number) > (100 if percent else count):
    raise errors.DataError('split', text, f'beyond the {count} images', 'narrow the slice')
  return position + count if text.startswith('-') else position
