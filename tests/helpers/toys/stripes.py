"""A data set of a newcomer: gray images whose stripes lie across or down."""

import numpy as np
import tensorflow_datasets as tfds

from bitnet_jax.data.datasets.builders import encode_png

with tfds.core.registered.skip_registration():

  class Stripes(tfds.core.GeneratorBasedBuilder):
    """Builds 200 and 40 images, 8x8 and gray, in two classes."""

    VERSION = tfds.core.Version('1.0.0')
    archive_urls = ()

    def _info(self):
      return tfds.core.DatasetInfo(
        builder=self,
        description='Stripes across or down.',
        features=tfds.features.FeaturesDict(
          {
            'id': tfds.features.Text(),
            'image': tfds.features.Image(shape=(8, 8, 1), encoding_format='png'),
            'label': tfds.features.ClassLabel(names=['across', 'down']),
          }
        ),
        supervised_keys=('image', 'label'),
      )

    def _split_generators(self, dl_manager):
      return {'train': self._generate_examples(0, 200), 'test': self._generate_examples(1, 40)}

    def _generate_examples(self, seed, count):
      rng = np.random.default_rng(seed)
      for index in range(count):
        rows = np.repeat(rng.integers(0, 256, (8, 1), np.uint8), 8, axis=1)
        image = rows.T if index % 2 else rows
        yield index, {'id': f'{index}', 'image': encode_png(image), 'label': index % 2}
