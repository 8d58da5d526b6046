"""Reads the encoded images of a split by index, from tfds or from a folder."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import tensorflow_datasets as tfds

from bitnet_jax import errors
from bitnet_jax.data.datasets import folder, prepared, shard_manifest


@dataclasses.dataclass(frozen=True)
class Example:
  """Holds one image as it is stored.

  Attributes:
    key: name of the image in error messages and predictions, unique in its split.
    encoded: bytes of a PNG or JPEG file.
    label: index into the source's `class_names`.
  """

  key: str
  encoded: bytes
  label: int


class Source(Protocol):
  """Gives random access to the examples of a split, and can be pickled.

  Attributes:
    name: a key of `config.datasets.DATASETS`.
    split: name of the split, as given to `open_source`.
    class_names: names in the order of the labels.
    channels: 1 (gray) or 3 (RGB).
    image_size: side in pixels; 0 where sizes vary.
    fingerprint: SHA-256 of the manifest of a prepared data set, or of the names and sizes of a
      folder's images.
    hashed: whether `fingerprint` depends on the contents of the images.
  """

  name: str
  split: str
  class_names: tuple[str, ...]
  channels: int
  image_size: int
  fingerprint: str
  hashed: bool

  def __len__(self) -> int:
    """Returns the number of examples."""

  def __getitem__(self, index: int) -> Example:
    """Reads one example, 0 <= index < len, from any thread."""

  def __getitems__(self, indices: Sequence[int]) -> list[Example]:
    """Reads several examples, faster than one by one where they are many."""


def check_label(example: Example, num_classes: int) -> int:
  """Returns an example's label.

  Raises:
    DataError: the label is out of range.
  """
  if not 0 <= example.label < num_classes:
    problem = f'label {example.label} is not in 0..{num_classes - 1}'
    raise errors.DataError('image', example.key, problem, 'correct or remove it')
  return example.label


def open_source(
  name: str,
  split: str,
  data_dir: str,
  *,
  hash_bytes: float = 0,
  stop: Callable[[], bool] = lambda: False,
) -> Source:
  """Opens a split for reading, and never prepares or downloads a data set.

  Args:
    name: 'folder', or a data set that `bitnet_jax.prepare` knows.
    split: for a folder the name of a sub-directory, or a slice ('train[:90%]') as in
      `folder.list_images`; else any split that tfds reads ('train', 'train[:45000]',
      'train[:10%]+test').
    data_dir: the folder, or tfds's directory ('' for its default). A folder may also be one that
      `prepare` wrote (NAME/VERSION), with the splits of tfds.
    hash_bytes: largest size of the shards, in bytes, for which their SHA-256 is compared.
    stop: ends the comparison early where it returns True; the caller ends too.

  Returns:
    The source.

  Raises:
    DataError: the data set is missing or incomplete, or has no such split.
  """
  if _is_plain_folder(name, data_dir):
    return FolderSource(split, data_dir)
  return TfdsSource(name, split, data_dir, hash_bytes=hash_bytes, stop=stop)


def check_there(name: str, data_dir: str) -> None:
  """Raises DataError at once where a data set is missing; reads none of its examples.

  Args:
    name: as for `open_source`.
    data_dir: as for `open_source`.

  Raises:
    DataError: the data set is missing.
  """
  if not _is_plain_folder(name, data_dir):
    prepared.find_builder(name, data_dir)
  elif not os.path.isdir(os.path.expanduser(data_dir)):
    raise errors.DataError('config.data.dir', repr(data_dir), 'no such directory', 'name a folder')


def _is_plain_folder(name: str, data_dir: str) -> bool:
  info = os.path.join(os.path.expanduser(data_dir), 'dataset_info.json')
  return name == 'folder' and not os.path.isfile(info)


class TfdsSource:
  """Reads a split of a prepared tfds data set; `Source` describes the attributes."""

  hashed = True

  def __init__(
    self,
    name: str,
    split: str,
    data_dir: str,
    *,
    hash_bytes: float = 0,
    stop: Callable[[], bool] = lambda: False,
  ):
    builder = prepared.open_builder(name, data_dir, hash_bytes=hash_bytes, stop=stop)
    features = builder.info.features
    height, width, channels = features['image'].shape
    self.name = name
    self.split = split
    self.class_names = tuple(features['label'].names)
    self.channels = channels
    self.image_size = height if height == width and height else 0
    self.fingerprint = shard_manifest.fingerprint(str(builder.data_path))
    self._data_dir = data_dir
    self._records = _open_records(builder, split)
    self._files = builder.info.splits[split].file_instructions

  def __len__(self) -> int:
    return len(self._records)

  def __getitem__(self, index: int) -> Example:
    if not 0 <= index < len(self):
      raise IndexError(f'index {index} of {len(self)} examples')
    try:
      record = self._records[index]
    except Exception as error:  # array_record raises several kinds on damaged files.
      raise errors.DataError(
        'record',
        f'{self.name}/{self.split}[{index}]',
        f'unreadable in {self._file_of(index)} ({error})',
        'remove the data set and prepare it again',
      ) from error
    return self._example(index, record)

  def __getitems__(self, indices: Sequence[int]) -> list[Example]:
    # One call of array_record takes 11 us an example; one by one, 160 us.
    indices = [int(index) for index in indices]
    try:
      records = self._records.__getitems__(indices)
    except Exception:
      return [self[index] for index in indices]  # Raises the error that names the example.
    return [self._example(index, r) for index, r in zip(indices, records, strict=True)]

  def _file_of(self, index: int) -> str:
    for part in self._files:
      if index < part.take:
        break
      index -= part.take
    return os.path.basename(part.filename)

  def _example(self, index: int, record: dict[str, Any]) -> Example:
    key = record.get('id', record.get('file_name'))
    name = f'{self.split}[{index}]' if key is None else key.decode('utf-8')
    return Example(key=name, encoded=record['image'], label=int(record['label']))

  def __reduce__(self) -> tuple[Any, ...]:
    # A worker opens the files itself: open readers cannot be pickled.
    return TfdsSource, (self.name, self.split, self._data_dir)


def _open_records(builder: Any, split: str) -> Any:
  decoders = {'image': tfds.decode.SkipDecoding()}
  try:
    if builder.info.splits[split].num_examples <= 0:
      raise ValueError('it is empty')
    return builder.as_data_source(split=split, decoders=decoders)
  except (ValueError, KeyError, AssertionError, TypeError) as error:
    splits = ', '.join(f'{k} ({v.num_examples} examples)' for k, v in builder.info.splits.items())
    reason = (str(error).strip().splitlines() or ['unknown'])[-1]
    raise errors.DataError(
      'split', split, f'not a split of {builder.name!r} ({reason})', f'choose from {splits}'
    ) from error
  except Exception as error:
    problem = f'{builder.name!r} cannot be opened ({error})'
    raise errors.DataError(
      'config.data.dir', builder.data_path, problem, 'remove it and prepare it again'
    ) from error


class FolderSource:
  """Reads a split of a folder of images, `SPLIT/CLASS/*.png`; `Source` describes the attributes.

  Attributes:
    paths: paths of the images, relative to the folder, which are also their keys.
    labels: int32 `[examples]`.
  """

  name = 'folder'
  channels = 3
  image_size = 0
  hashed = False

  def __init__(self, split: str, root: str):
    listing = folder.list_images(root, split)
    self.split = split
    self.class_names = listing.class_names
    self.paths = listing.paths
    self.labels = np.asarray(listing.labels, np.int32)
    # Hashing the contents would read all images, which `arrays` does anyway.
    files = zip(listing.paths, listing.sizes, strict=True)
    text = '\0'.join(f'{path}\0{size}' for path, size in files)
    self.fingerprint = hashlib.sha256(os.fsencode(text)).hexdigest()
    self._root = os.path.expanduser(root)

  def __len__(self) -> int:
    return len(self.paths)

  def __getitem__(self, index: int) -> Example:
    if not 0 <= index < len(self):
      raise IndexError(f'index {index} of {len(self)} examples')
    path = self.paths[index]
    try:
      with open(os.path.join(self._root, path), 'rb') as file:
        encoded = file.read()
    except OSError as error:
      problem = f'unreadable ({error.strerror})'
      raise errors.DataError('image', path, problem, 'restore or remove the file') from error
    return Example(key=path, encoded=encoded, label=int(self.labels[index]))

  def __getitems__(self, indices: Sequence[int]) -> list[Example]:
    return [self[int(index)] for index in indices]
