"""Builds ILSVRC12 from its official archives without TensorFlow, for `prepare`.

Name, version, features and order on disk are those of tfds's own builder, which reads the archives
through TensorFlow. Gray and color JPEG files keep their bytes; all others (one PNG and 22 CMYK
files of the official set) are encoded again, as in tfds.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from typing import Any

import simplejpeg
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.download import checksums
from tensorflow_datasets.datasets.imagenet2012 import imagenet2012_dataset_builder as official

from bitnet_jax import errors
from bitnet_jax.data.datasets import archives
from bitnet_jax.data.images import decode

TRAIN, VALIDATION = 'ILSVRC2012_img_train.tar', 'ILSVRC2012_img_val.tar'
_FOLDER = 'datasets/imagenet2012'  # In the package tfds.
_VALIDATION_NAME = re.compile(r'ILSVRC2012_val_(\d{8})\.JPEG')


def repair(encoded: bytes, key: str) -> bytes:
  """Returns the bytes of a gray or color JPEG: `encoded` itself where it is one.

  Raises:
    DataError: the image cannot be decoded.
  """
  if encoded[:2] == b'\xff\xd8':
    try:
      if simplejpeg.decode_jpeg_header(encoded)[2] in decode.PLAIN_JPEG:
        return encoded
    except ValueError as error:
      raise errors.DataError(
        'image', key, f'damaged ({error})', 'fetch the archive again'
      ) from error
  file = io.BytesIO()
  Image.fromarray(decode.decode(encoded, 3, key)).save(file, 'JPEG', quality=100)
  return file.getvalue()


def _example(name: str, encoded: bytes, label: str) -> dict[str, Any]:
  return {'file_name': name, 'image': repair(encoded, name), 'label': label}


def validation_labels() -> list[str]:
  """Returns the WordNet identifiers of the 50,000 validation images, by number, from tfds."""
  return tfds.core.tfds_path(f'{_FOLDER}/validation_labels.txt').read_text().split()


with tfds.core.registered.skip_registration():

  class Imagenet2012(official.Builder):
    """Builds ILSVRC12 (Russakovsky et al. 2015): 1,281,167 and 50,000 images in 1,000 classes."""

    name = 'imagenet2012'
    url_infos = checksums.load_url_infos(tfds.core.tfds_path(f'{_FOLDER}/checksums.tsv'))
    archive_urls: tuple[str, ...] = ()  # Only registered users can download the archives.
    manual_archives = (TRAIN, VALIDATION)

    def _info(self) -> tfds.core.DatasetInfo:
      names = tfds.core.tfds_path(f'{_FOLDER}/labels.txt')
      return tfds.core.DatasetInfo(
        builder=self,
        description='ILSVRC 2012.',
        features=tfds.features.FeaturesDict(
          {
            'image': tfds.features.Image(encoding_format='jpeg'),
            'label': tfds.features.ClassLabel(names_file=names),
            'file_name': tfds.features.Text(),
          }
        ),
        supervised_keys=('image', 'label'),
        homepage='https://image-net.org/',
      )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
      folder = os.fspath(dl_manager.manual_dir)
      return {
        'train': self._training(os.path.join(folder, TRAIN)),
        'validation': self._validation(os.path.join(folder, VALIDATION)),
      }

    def _training(self, archive: str) -> Iterator[tuple[str, dict[str, Any]]]:
      """Yields the examples of an archive that has one archive for each class."""
      class_names = set(self.info.features['label'].names)
      for inner, name, encoded in archives.walk_nested(archive):
        label = inner.removesuffix('.tar')
        if label not in class_names:
          problem = f'member {inner!r} is not a class of ILSVRC12'
          raise errors.DataError('archive', archive, problem, 'fetch it again')
        yield name, _example(name, encoded, label)

    def _validation(self, archive: str) -> Iterator[tuple[str, dict[str, Any]]]:
      labels = validation_labels()
      for name, encoded in archives.walk(archive):
        match = _VALIDATION_NAME.fullmatch(name)
        if not match or not 1 <= int(match[1]) <= len(labels):
          problem = f'member {name!r} is not a validation image of ILSVRC12'
          raise errors.DataError('archive', archive, problem, 'fetch it again')
        yield name, _example(name, encoded, labels[int(match[1]) - 1])
