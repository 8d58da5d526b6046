"""Gradient norms against closed forms, and in the order of the network."""

from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest

from bitnet_jax import errors, models
from bitnet_jax.analysis import gradients
from bitnet_jax.checkpoints import pretrained
from bitnet_jax.config import defaults
from bitnet_jax.data import splits
from bitnet_jax.data.batches import arrays
from bitnet_jax.models import build

_CLASSES = tuple(map(str, range(10)))


def _config():
  config = defaults.default_config()
  config.model.width, config.model.tree_depth, config.model.num_blocks = 1, 2, 1
  config.model.batch_norm_group = 4
  config.global_batch_size = 8
  return config


def _images(count):
  stream = np.random.RandomState(0)
  image = stream.randint(0, 256, (count, 8, 8, 3)).astype(np.uint8)
  return image, stream.randint(0, 10, count).astype(np.int32)


class GradientsTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.config = _config()
    cls.model = build.make_model(cls.config, 10, '')
    cls.variables = jax.device_get(
      jax.jit(lambda: cls.model.init(jax.random.key(0, impl='rbg'), jnp.zeros((1, 8, 8, 3))))()
    )
    cls.run_ = pretrained.Trained(cls.config, _CLASSES, 0, cls.variables, (8, 8, 3))
    cls.image, cls.label = _images(20)

  def _norms(self, batches, count=20):
    data = mock.Mock(spec=arrays.Arrays, image=self.image[:count], label=self.label[:count])
    source = mock.Mock(image_size=8)
    with (
      mock.patch.object(splits, 'open_split', return_value=source) as opened,
      mock.patch.object(arrays, 'load_arrays', return_value=data) as load,
    ):
      found = gradients.layer_norms(self.run_, 'train[:20]', batches)
    opened.assert_called_once_with(self.config, 'train[:20]')
    self.assertEqual(load.call_args.args, (source, 8))
    return {norm.name: norm for norm in found}

  def test_head_has_the_norm_of_its_closed_form(self):
    norms = gradients.make_norms(self.model, mean=(0.0,) * 3, std=(1.0,) * 3)
    image, label = self.image[:8], self.label[:8]
    found = norms(self.variables, image, label)['head']
    # With an identity for its kernel the head gives the pooled features.
    wide = models.create_model(
      'bitnet', num_classes=64, width=1, tree_depth=2, num_blocks=1, batch_norm_group=4
    )
    head = {'kernel': jnp.eye(64), 'bias': jnp.zeros(64)}
    params = {**self.variables['params'], 'head': head}
    state = {**self.variables, 'params': params}
    pooled, _ = wide.apply(state, image.astype(np.float32), train=True, mutable=['batch_stats'])
    logits = pooled @ self.variables['params']['head']['kernel']
    residual = jax.nn.softmax(logits) - jax.nn.one_hot(label, 10)
    np.testing.assert_allclose(found, jnp.linalg.norm(pooled.T @ residual / 8), rtol=1e-4)

  def test_kernels_are_in_the_order_of_computation(self):
    names = list(self._norms(1))
    levels = [f'stage{s}_block1/level{k}_conv' for s in (1, 2, 3) for k in (1, 2)]
    self.assertEqual(names, ['stem_conv', *levels, 'head'])

  def test_order_is_by_number_with_projections_last(self):
    names = ['head', 'stage1_block10/layer1_conv', 'stage1_block2/projection', 'stem_conv',
             'stage1_block2/layer2_conv', 'stage1_block2/layer1_conv']  # fmt: skip
    self.assertEqual(
      sorted(names, key=gradients._order),
      [names[3], names[5], names[4], names[2], names[1], names[0]],
    )

  def test_norms_are_means_over_the_whole_batches(self):
    one, two = self._norms(1), self._norms(5)
    norms = gradients.make_norms(self.model, mean=self.config.data.mean, std=self.config.data.std)
    order = gradients.order.epoch_order(self.config.seed, 0, 20)
    parts = [norms(self.variables, self.image[i], self.label[i]) for i in (order[:8], order[8:16])]
    for name, norm in two.items():
      values = [float(part[name]) for part in parts]
      self.assertAlmostEqual(one[name].gradient, values[0], places=5)
      self.assertAlmostEqual(norm.gradient, sum(values) / 2, places=5)
      kernel = gradients.kernels_by_name(self.variables['params'])[name]
      self.assertAlmostEqual(norm.weight, float(np.sqrt((kernel**2).sum())), places=4)

  def test_a_split_smaller_than_a_batch_is_refused(self):
    with self.assertRaisesRegex(errors.ConfigError, r'split=train\[:20\]: 7 images'):
      self._norms(1, count=7)

  def test_table_and_figure_hold_the_norms(self):
    norms = [gradients.LayerNorm('a', 9, 0.5, 2.0), gradients.LayerNorm('b', 1234, 50.0, 0.0)]
    lines = gradients.table(norms).splitlines()
    self.assertEqual(lines[1].split(), ['a', '9', '0.5', '2', '0.25'])
    self.assertEqual(lines[2].split(), ['b', '1,234', '50', '0', 'nan'])
    (panel,) = gradients.draw(norms, 'title').axes
    self.assertEqual(list(panel.get_lines()[0].get_xdata()), [0.5, 50.0])
    self.assertEqual(panel.get_xscale(), 'log')


if __name__ == '__main__':
  absltest.main()
