"""Shapes and first parameters of the networks against an independent PyTorch build."""

import jax
import jax.numpy as jnp
import numpy as np
from absl.testing import absltest, parameterized

from bitnet_jax import models
from tests.helpers.small_networks import narrow
from tests.helpers.torch_reference import (
  cifar,
  counterpart,
  imagenet,
  nn,
  torch,
  torch_names,
)


class ShapeTest(parameterized.TestCase):
  @parameterized.parameters(
    ('bitnet', (4, 4, 3)), ('bitnet', (12, 2, 4)), ('wide_resnet', (10, 2, 3)),
    ('plainnet', (4, 2, 6)), ('bitnet26', ()), ('bitnet34', ()), ('resnet18b', ()),
    ('resnet34b', ()),
  )  # fmt: skip
  def test_full_size_networks_have_the_same_tensors(self, kind, sizes):
    given = dict(zip(('width', 'tree_depth', 'num_blocks'), sizes, strict=False))
    model = models.create_model(kind, num_classes=1000, **given)
    images = jnp.zeros((1, 64, 64, 3))
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images))
    variables = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), shapes)
    with torch.device('meta'):
      reference = cifar(kind, *sizes, 1000) if sizes else imagenet(kind, 1, 1000)
    state, covered = reference.state_dict(), 0
    for name in torch_names(reference):
      self.assertEqual(counterpart(name, variables).shape, tuple(state[name].shape), name)
      covered += state[name].numel()
    self.assertEqual(covered, sum(leaf.size for leaf in jax.tree.leaves(shapes)))


class InitTest(parameterized.TestCase):
  @parameterized.parameters(
    ('bitnet', (2, 3, 1), 'fan_out', 'ones'), ('bitnet', (2, 1, 1), 'fan_out', 'ones'),
    ('bitnet26', (), 'fan_out', 'ones'), ('wide_resnet', (4, 2, 1), 'fan_out', 'ones'),
    ('bitnet', (2, 3, 1), 'fan_in', 'uniform'),
  )  # fmt: skip
  def test_draws_are_distributed_as_the_recipe(self, kind, sizes, mode, scale):
    given = dict(zip(('width', 'tree_depth', 'num_blocks'), sizes, strict=False))
    model = models.create_model(
      kind, num_classes=100, conv_init=mode, norm_scale_init=scale, **given
    )
    model = model if sizes else narrow(model, 4)
    images = jnp.zeros((1, 32, 32, 3))
    variables = jax.jit(model.init)(jax.random.key(0, impl='rbg'), images)
    torch.manual_seed(0)
    reference = cifar(kind, *sizes, 100) if sizes else imagenet(kind, 4, 100)
    for module in reference.modules():
      if isinstance(module, nn.Conv2d):
        filters = module.in_channels if mode == 'fan_in' else module.out_channels
        nn.init.normal_(module.weight, 0, np.sqrt(2 / (module.kernel_size[0] ** 2 * filters)))
      elif isinstance(module, nn.BatchNorm2d) and scale == 'uniform':
        nn.init.uniform_(module.weight)
      elif isinstance(module, nn.Linear):
        nn.init.zeros_(module.bias)
    for name, parameter in reference.named_parameters():
      self.assert_alike(counterpart(name, variables), parameter.detach().numpy(), name)

  def assert_alike(self, ours, theirs, name):
    """Equal where they are constant, else of equal first, second and fourth moment."""
    if theirs.std() == 0:
      np.testing.assert_array_equal(ours, theirs, name)
      return
    # Six deviations of the difference of two samples' moments, were both of them normal.
    slack = 6 * np.sqrt(2 / theirs.size)
    std = theirs.std()
    self.assertLess(abs(ours.mean() - theirs.mean()) / std, slack, name)
    self.assertLess(abs(np.log(ours.std() / std)), slack / np.sqrt(2), name)
    fourth = [(((x - x.mean()) / x.std()) ** 4).mean() for x in (ours, theirs)]
    self.assertLess(abs(fourth[0] - fourth[1]), slack * np.sqrt(24), name)


if __name__ == '__main__':
  absltest.main()
