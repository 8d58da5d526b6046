"""Lists the data sets that `config.data.name` can name, with what validation asks about each.

This file imports no data set: the configuration is read before tfds is loaded.
`data.datasets.builders.BUILDERS` prepares what an entry names, except for 'folder'.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class DatasetEntry:
  """Describes what a configuration must give for a data set.

  Attributes:
    image_size: side of its images in pixels; 0 where they vary in size.
    must_stream: whether the data set is too large for a device.
    needs_dir: whether `config.data.dir` has no default.
  """

  image_size: int = 0
  must_stream: bool = False
  needs_dir: bool = False


DATASETS = {
  'digits': DatasetEntry(image_size=8),
  'cifar10': DatasetEntry(image_size=32),
  'cifar100': DatasetEntry(image_size=32),
  'folder': DatasetEntry(needs_dir=True),
  'imagenet2012': DatasetEntry(must_stream=True),
}
