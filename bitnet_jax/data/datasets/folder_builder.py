"""Builds a tfds data set from a folder of images, for `prepare --dataset=FOLDER`."""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from bitnet_jax import errors
from bitnet_jax.data.datasets import folder
from bitnet_jax.data.images import decode

_PLAIN_PNG = ('L', 'RGB')


def name_of(path: str) -> str:
  """Returns the name of a folder's data set: the folder's own, in characters that tfds allows."""
  name = re.sub(r'[^a-z0-9]+', '_', os.path.basename(os.path.abspath(path)).lower()).strip('_')
  return name if name[:1].isalpha() else f'folder_{name}'.rstrip('_')


def make(path: str) -> type[tfds.core.GeneratorBasedBuilder]:
  """Returns the builder of a folder that is laid out as `folder.list_images` describes.

  The sub-directories are the splits, and those of 'train' the classes. A gray or color JPEG and an
  8-bit PNG without transparency keep their bytes; every other image is stored as the PNG of the
  pixels that `decode.decode` returns, so that any program reads RGB.
  """
  with tfds.core.registered.skip_registration():

    class Folder(tfds.core.GeneratorBasedBuilder):
      """Builds the images of a folder."""

      name = name_of(path)
      VERSION = tfds.core.Version('1.0.0')
      pkg_dir_path = None
      archive_urls: tuple[str, ...] = ()

      def _info(self) -> tfds.core.DatasetInfo:
        classes = folder.list_images(path, folder.TRAIN).class_names
        features = {
          'image': tfds.features.Image(shape=(None, None, 3)),
          'label': tfds.features.ClassLabel(names=list(classes)),
          'file_name': tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
          builder=self,
          description=f'Images of the folder {self.name}.',
          features=tfds.features.FeaturesDict(features),
          supervised_keys=('image', 'label'),
        )

      def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        return {split: _examples(path, split) for split in splits(path)}

      def _generate_examples(self) -> Iterator:
        raise NotImplementedError

  return Folder


def splits(path: str) -> list[str]:
  """Returns the sub-directories of a folder, which are the names of the splits.

  Raises:
    DataError: a sub-directory's name cannot be the name of a split.
  """
  names = sorted(e.name for e in os.scandir(path) if e.is_dir() and e.name[0] != '.')
  for name in names:
    if not re.fullmatch(r'\w+', name):
      problem = f'sub-directory {name!r} cannot be a split'
      raise errors.DataError('folder', path, problem, 'use letters, digits and underscores')
  return names


def plain(encoded: bytes, key: str) -> bytes:
  """Returns bytes of an image that any decoder reads as RGB or gray: `encoded` itself if it does.

  Args:
    encoded: bytes of a JPEG or PNG file.
    key: name of the image in an error.

  Raises:
    DataError: the image cannot be decoded.
  """
  pixels = decode.decode(encoded, 3, key)  # Damaged images fail here rather than in training.
  if encoded[:2] == b'\xff\xd8':
    is_plain = decode.plain_jpeg_size(encoded) is not None
  else:
    with Image.open(io.BytesIO(encoded)) as image:
      # The pixels of a rotated PNG, or of one with 16 bits, differ.
      is_plain = image.mode in _PLAIN_PNG and not image.has_transparency_data
      is_plain = is_plain and np.array_equal(np.asarray(image.convert('RGB')), pixels)
  if is_plain:
    return encoded
  file = io.BytesIO()
  Image.fromarray(pixels).save(file, 'PNG')
  return file.getvalue()


def _examples(path: str, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
  listing = folder.list_images(path, split)
  for name, label in zip(listing.paths, listing.labels, strict=True):
    with open(os.path.join(path, name), 'rb') as file:
      encoded = file.read()
    yield name, {'file_name': name, 'image': plain(encoded, name), 'label': label}
