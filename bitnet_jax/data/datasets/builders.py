"""Builds data sets in the format of tfds without TensorFlow, for `prepare`.

The builders of tfds extract archives and encode pixels through TensorFlow. The builders here read
the official archives with `tarfile` and give tfds bytes that are encoded already. Name, version and
features are those of tfds, so any program reads the result as `tfds.data_source('cifar10')`,
without this package too.

To add a data set, write its builder, name it in `BUILDERS`, and add an entry to `config.datasets`.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.image_classification import cifar

from bitnet_jax import errors
from bitnet_jax.data.datasets import archives, imagenet

_DIGITS_TRAIN = 1437  # 80 % of 1,797; in this order most writers of the test split are unseen.


def encode_png(pixels: np.ndarray) -> io.BytesIO:
  """Encodes pixels as PNG, without loss.

  Args:
    pixels: uint8 `[height, width]` or `[height, width, 3]`.

  Returns:
    The PNG file, positioned at its start.
  """
  encoded = io.BytesIO()
  Image.fromarray(pixels).save(encoded, 'PNG')
  encoded.seek(0)
  return encoded


class _CifarFromBinary:
  """Generates CIFAR from the binary archive, as a mixin of tfds's builders."""

  _cifar_info: cifar.CifarInfo
  info: Any

  @property
  def archive_urls(self) -> tuple[str, ...]:
    """Returns the archives that `prepare` downloads, or reads from the directory of archives."""
    return (self._cifar_info.url,)

  def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
    layout = self._cifar_info
    archive = str(dl_manager.download(layout.url))
    files = [*layout.label_files, *layout.train_files, *layout.test_files]
    contents = archives.read_members(archive, [layout.prefix + name for name in files])
    for key, name in zip(layout.label_keys, layout.label_files, strict=True):
      text = contents[layout.prefix + name].decode('utf-8')
      names = [line for line in text.split('\n') if line]
      expected = self.info.features[key].num_classes
      if len(names) != expected:
        problem = f'{name} has {len(names)} names, not {expected}'
        raise errors.DataError('archive', archive, problem, 'fetch it again')
      self.info.features[key].names = names
    splits = {'train': layout.train_files, 'test': layout.test_files}
    return {
      split: self._generate_examples(
        f'{split}_', [(name, contents[layout.prefix + name]) for name in names]
      )
      for split, names in splits.items()
    }

  def _generate_examples(
    self, split_prefix: str, files: list[tuple[str, bytes]]
  ) -> Iterator[tuple[int, dict[str, Any]]]:
    keys = self._cifar_info.label_keys
    index = 0  # Also the key, as in tfds: the key decides the order on disk.
    for name, content in files:
      record_bytes = len(keys) + 3 * 32 * 32
      if not content or len(content) % record_bytes:
        problem = f'{len(content)} bytes are not a whole number of {record_bytes}-byte records'
        raise errors.DataError('archive member', name, problem, 'fetch the archive again')
      for record in np.frombuffer(content, np.uint8).reshape(-1, record_bytes):
        example: dict[str, Any] = {'id': f'{split_prefix}{index:05d}'}
        for key, label in zip(keys, record.tolist(), strict=False):
          if label >= self.info.features[key].num_classes:
            problem = f'record {index} has {key} {label}'
            raise errors.DataError('archive member', name, problem, 'fetch the archive again')
          example[key] = label
        pixels = record[len(keys) :].reshape(3, 32, 32).transpose(1, 2, 0)
        example['image'] = encode_png(np.ascontiguousarray(pixels))
        yield index, example
        index += 1


with tfds.core.registered.skip_registration():
  # The registry of tfds has classes of these names, which read what these builders write.

  class Cifar10(_CifarFromBinary, cifar.Cifar10):
    """Builds CIFAR-10 (Krizhevsky 2009): 50,000 and 10,000 32x32 color images in 10 classes."""

  class Cifar100(_CifarFromBinary, cifar.Cifar100):
    """Builds CIFAR-100 (Krizhevsky 2009): as CIFAR-10, in 100 classes and 20 superclasses."""

  class Digits(tfds.core.GeneratorBasedBuilder):
    """Builds the test set of UCI's Optical Recognition of Handwritten Digits, 8x8 and gray.

    scikit-learn contains the images, so nothing is downloaded. The 17 levels of gray, 0 to 16,
    become `round(255 * level / 16)`. The first 1,437 images of the file are the training split,
    the last 360 the test split.
    """

    VERSION = tfds.core.Version('1.0.0')
    archive_urls: tuple[str, ...] = ()

    def _info(self) -> tfds.core.DatasetInfo:
      return tfds.core.DatasetInfo(
        builder=self,
        description='1,797 handwritten digits, 8x8, gray.',
        features=tfds.features.FeaturesDict(
          {
            'id': tfds.features.Text(),
            'image': tfds.features.Image(shape=(8, 8, 1), encoding_format='png'),
            'label': tfds.features.ClassLabel(num_classes=10),
          }
        ),
        supervised_keys=('image', 'label'),
        homepage='https://archive.ics.uci.edu/dataset/80',
      )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
      from sklearn import datasets  # Takes a second to import, for this builder alone.

      digits = datasets.load_digits()
      pixels = np.rint(digits.images * (255 / 16)).astype(np.uint8)
      cut = _DIGITS_TRAIN
      return {
        'train': self._generate_examples('train', pixels[:cut], digits.target[:cut]),
        'test': self._generate_examples('test', pixels[cut:], digits.target[cut:]),
      }

    def _generate_examples(
      self, split: str, pixels: np.ndarray, labels: np.ndarray
    ) -> Iterator[tuple[int, dict[str, Any]]]:
      for index, (image, label) in enumerate(zip(pixels, labels, strict=True)):
        key = f'{split}_{index:05d}'
        yield index, {'id': key, 'image': encode_png(image), 'label': int(label)}


BUILDERS: dict[str, type[tfds.core.GeneratorBasedBuilder]] = {
  'digits': Digits,
  'cifar10': Cifar10,
  'cifar100': Cifar100,
  'imagenet2012': imagenet.Imagenet2012,
}
