"""The networks and the optimizer against an independent PyTorch build.

The PyTorch side is written from the paper: channels first, left and right of every tree level as
two convolutions with a batch norm each. Both sides compute in float64, where rounding stays far
below 1e-9 and what is left is a difference of definition. The modules fix float32 for parameters,
statistics and logits, so here their name `jnp.float32` means float64; one test compares the float32
that users run.
"""

import functools
import re
import unittest
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest, parameterized

from bitnet_jax import models
from bitnet_jax.models import layers, norm
from bitnet_jax.training import metrics, optim

try:
  import torch
  import torch.nn.functional as F
  from torch import nn
except ImportError as error:
  raise unittest.SkipTest(f'PyTorch is not installed: {error}') from error

CLASSES = 7
RATES = {'learning_rate': 0.1, 'drop_factor': 0.2}
TORCH_SGD = {'momentum': 0.9, 'nesterov': True, 'weight_decay': 5e-4}


def conv(inputs, outputs, kernel=3, stride=1):
  return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)


class Tree(nn.Module):
  """Equations 2 and 3: right_k and left_k both read left_(k-1)."""

  def __init__(self, inputs, features, depth, stride):
    super().__init__()
    self.depth = depth
    for level in range(1, depth + 1):
      filters = features // 2**level
      for side in ('right', 'left'):
        self.add_module(f'{side}{level}_conv', conv(inputs, filters, stride=stride))
        self.add_module(f'{side}{level}_norm', nn.BatchNorm2d(filters))
      inputs, stride = filters, 1

  def unit(self, name, x):
    return F.relu(getattr(self, f'{name}_norm')(getattr(self, f'{name}_conv')(x)))

  def forward(self, x):
    outputs, left = [], x
    for level in range(1, self.depth + 1):
      outputs.append(self.unit(f'right{level}', left))
      left = self.unit(f'left{level}', left)
    return torch.cat([*outputs, left], 1)


class PreActivation(nn.Module):
  """A block of a Wide ResNet or, without shortcut, of a plainnet."""

  def __init__(self, inputs, features, stride, shortcut):
    super().__init__()
    self.shortcut = shortcut
    self.layer1_norm, self.layer1_conv = nn.BatchNorm2d(inputs), conv(inputs, features, 3, stride)
    self.layer2_norm, self.layer2_conv = nn.BatchNorm2d(features), conv(features, features)
    if shortcut and inputs != features:
      self.projection = conv(inputs, features, 1, stride)

  def forward(self, x):
    active = F.relu(self.layer1_norm(x))
    y = self.layer2_conv(F.relu(self.layer2_norm(self.layer1_conv(active))))
    if not self.shortcut:
      return y
    return y + (self.projection(active) if hasattr(self, 'projection') else x)


class Basic(nn.Module):
  """A block of an ILSVRC12 ResNet with shortcuts of type B."""

  def __init__(self, inputs, features, stride):
    super().__init__()
    self.layer1_conv, self.layer1_norm = conv(inputs, features, 3, stride), nn.BatchNorm2d(features)
    self.layer2_conv, self.layer2_norm = conv(features, features), nn.BatchNorm2d(features)
    if inputs != features:
      self.projection = conv(inputs, features, 1, stride)
      self.projection_norm = nn.BatchNorm2d(features)

  def forward(self, x):
    y = F.relu(self.layer1_norm(self.layer1_conv(x)))
    y = self.layer2_norm(self.layer2_conv(y))
    shortcut = self.projection_norm(self.projection(x)) if hasattr(self, 'projection') else x
    return F.relu(y + shortcut)


class Network(nn.Module):
  """Stem, blocks, global average pooling and classifier; `make_block(inputs, features, stride)`."""

  def __init__(self, stages, make_block, *, stem_kernel, stem_width, norm, classes):
    super().__init__()
    self.stem_conv = conv(3, stem_width, stem_kernel, 2 if stem_kernel == 7 else 1)
    self.add_module(
      f'{norm}_norm', nn.BatchNorm2d(stem_width if norm == 'stem' else stages[-1][-1])
    )
    self.block_names, inputs = [], stem_width
    for stage, widths in enumerate(stages, start=1):
      for index, features in enumerate(widths, start=1):
        stride = 2 if stage > 1 and index == 1 else 1
        self.block_names.append(f'stage{stage}_block{index}')
        self.add_module(self.block_names[-1], make_block(inputs, features, stride))
        inputs = features
    self.head = nn.Linear(inputs, classes)

  def forward(self, x):
    x = self.stem_conv(x)
    if hasattr(self, 'stem_norm'):
      x = F.relu(self.stem_norm(x))
    if self.stem_conv.stride == (2, 2):
      x = F.max_pool2d(x, 3, stride=2, padding=1)
    for name in self.block_names:
      x = getattr(self, name)(x)
    if hasattr(self, 'final_norm'):
      x = F.relu(self.final_norm(x))
    return self.head(x.mean((2, 3)))


def cifar(kind, d, k, n, classes):
  stages = [[16 * d] * n, [32 * d] * n, [64 * d] * n]
  if kind == 'bitnet':
    make_block = lambda inputs, features, stride: Tree(inputs, features, k, stride)  # noqa: E731
    norm = 'stem'
  else:
    shortcut = kind == 'wide_resnet'
    make_block = lambda *shape: PreActivation(*shape, shortcut)  # noqa: E731
    norm = 'final'
  return Network(stages, make_block, stem_kernel=3, stem_width=16, norm=norm, classes=classes)


def imagenet(kind, shrink, classes):
  """`shrink` divides the widths of the blocks, not the stem's 64."""
  stages = {
    'bitnet26': [[128, 128], [192, 256], [384, 384], [512, 768]],
    'bitnet34': [[256, 256], [384, 384], [512, 512], [768, 768]],
    'resnet18b': [[64] * 2, [128] * 2, [256] * 2, [512] * 2],
    'resnet34b': [[64] * 3, [128] * 4, [256] * 6, [512] * 3],
  }[kind]
  stages = [[width // shrink for width in widths] for widths in stages]
  depth = {'bitnet26': 3, 'bitnet34': 4}.get(kind, 0)
  make_block = (lambda *shape: Tree(*shape[:2], depth, shape[2])) if depth else Basic
  return Network(stages, make_block, stem_kernel=7, stem_width=64, norm='stem', classes=classes)


def torch_names(reference):
  """Names of parameters and running statistics."""
  return [name for name in reference.state_dict() if not name.endswith('num_batches_tracked')]


def counterpart(name, variables):
  """What the Flax network holds for a PyTorch tensor, in PyTorch's layout."""
  *path, leaf = name.split('.')
  half = re.fullmatch(r'(right|left)(\d)_(conv|norm)', path[-1])
  if half:
    path[-1] = f'level{half[2]}_{half[3]}'
  is_norm = path[-1].endswith('norm')
  leaf_names = {'running_mean': 'mean', 'running_var': 'var', 'bias': 'bias'}
  tree = variables['batch_stats' if leaf.startswith('running') else 'params']
  for key in (*path, leaf_names.get(leaf, 'scale' if is_norm else 'kernel')):
    tree = tree[key]
  array = np.asarray(tree)
  if half:  # the first half is the right child
    filters = array.shape[-1] // 2
    array = array[..., :filters] if half[1] == 'right' else array[..., filters:]
  return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T


def random_variables(model, size, seed=0):
  """Float64 parameters and statistics, none of which is at its initial zero or one."""
  shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, size, size, 3))))
  random = np.random.default_rng(seed)
  draws = {
    'kernel': lambda shape: random.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape),
    'scale': lambda shape: random.uniform(0.5, 1.5, shape),
    'bias': lambda shape: random.normal(0, 0.2, shape),
    'mean': lambda shape: random.normal(0, 0.2, shape),
    'var': lambda shape: random.uniform(0.5, 2, shape),
  }
  return jax.tree.map_with_path(lambda path, leaf: draws[path[-1].key](leaf.shape), shapes)


def narrowed(model, factor):
  """An ILSVRC12 BitNet whose blocks are narrower; the stem keeps its 64 filters."""
  return model.clone(
    stages=tuple(
      tuple((width // factor, depth) for width, depth in stage) for stage in model.stages
    )
  )


def load(reference, variables):
  reference.double()
  state = {name: torch.tensor(counterpart(name, variables)) for name in torch_names(reference)}
  reference.load_state_dict(state, strict=False)


def make_batch(batch, size, seed=1):
  random = np.random.default_rng(seed)
  return random.normal(size=(batch, size, size, 3)), random.integers(0, CLASSES, batch)


def torch_images(images):
  return torch.tensor(images.transpose(0, 3, 1, 2))


class Double:
  """`jax.numpy`, in which float32 means float64."""

  def __getattr__(self, name):
    return getattr(jnp, 'float64' if name == 'float32' else name)


def make_step(model, optimizer):
  """One training step, which also gives the logits in evaluation before it."""

  @jax.jit
  def step(variables, opt_state, images, labels):
    def loss_and_logits(params):
      logits, moved = model.apply(
        {**variables, 'params': params}, images, train=True, mutable=['batch_stats']
      )
      return metrics.cross_entropy(logits, labels).mean(), (logits, moved['batch_stats'])

    evaluated = model.apply(variables, images, train=False)
    (loss, (logits, stats)), grads = jax.value_and_grad(loss_and_logits, has_aux=True)(
      variables['params']
    )
    updates, opt_state = optimizer.update(grads, opt_state, variables['params'])
    params = jax.tree.map(jnp.add, variables['params'], updates)
    report = {'eval': evaluated, 'logits': logits, 'loss': loss, 'params': grads}
    return {'params': params, 'batch_stats': stats}, opt_state, report

  return step


class ParityTestCase(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enterContext(jax.enable_x64(True))
    for module in (layers, metrics, norm, optim):
      self.enterContext(mock.patch.object(module, 'jnp', Double()))

  def assert_near(self, got, want, name, tolerance=1e-9):
    got, want = np.asarray(got), np.asarray(want.detach() if torch.is_tensor(want) else want)
    self.assertEqual(got.shape, want.shape, name)
    error = np.abs(got - want).max() / np.abs(want).max()
    self.assertLess(error, tolerance, f'{name}: off by {error:.1e} of the largest value')

  def assert_same_state(self, variables, reference, tolerance=1e-9):
    for name in torch_names(reference):
      self.assert_near(counterpart(name, variables), reference.state_dict()[name], name, tolerance)

  def compare_pass(self, report, reference, images, labels):
    """Evaluation, then what a pass in training gives: logits, loss and every gradient."""
    self.assertEqual(report['logits'].dtype, jnp.float64)
    self.assert_near(report['eval'], reference.eval()(torch_images(images)), 'logits, eval')
    logits = reference.train()(torch_images(images))
    loss = F.cross_entropy(logits, torch.tensor(labels))
    reference.zero_grad()
    loss.backward()
    self.assert_near(report['logits'], logits, 'logits, train')
    self.assert_near(report['loss'], loss, 'loss')
    for name, parameter in reference.named_parameters():
      self.assert_near(counterpart(name, report), parameter.grad, f'gradient of {name}')


class NetworkTest(ParityTestCase):
  @parameterized.parameters(
    ('bitnet', 1, 3, 1), ('bitnet', 1, 1, 1), ('wide_resnet', 1, 2, 1), ('plainnet', 2, 2, 1)
  )
  def test_three_steps_of_cifar_networks(self, kind, d, k, n):
    """At 14 pixels, then 7 and 4; the learning rate drops after two steps."""
    model = models.create_model(
      kind, num_classes=CLASSES, width=d, tree_depth=k, num_blocks=n, dtype=jnp.float64
    )
    variables, reference = random_variables(model, 14), cifar(kind, d, k, n, CLASSES)
    load(reference, variables)
    schedule = optim.make_schedule(
      schedule='step', drop_epochs=(2,), warmup_epochs=0, steps_per_epoch=2, total_steps=4, **RATES
    )
    optimizer = optim.make_optimizer(schedule, **TORCH_SGD)
    step, opt_state = make_step(model, optimizer), optimizer.init(variables['params'])
    torch_sgd = torch.optim.SGD(reference.parameters(), lr=0.1, **TORCH_SGD)
    torch_rate = torch.optim.lr_scheduler.MultiStepLR(torch_sgd, [2], gamma=0.2)
    for index in range(3):
      images, labels = make_batch(5, 14, seed=index)
      variables, opt_state, report = step(variables, opt_state, images, labels)
      self.compare_pass(report, reference, images, labels)
      torch_sgd.step()
      torch_rate.step()
      self.assert_same_state(variables, reference)

  @parameterized.parameters('bitnet26', 'resnet18b')
  def test_imagenet_networks(self, kind):
    """Blocks an eighth as wide, at 40 pixels: 20 after the stem, then 10, 5, 3 and 2."""
    model, variables, reference = self.make_imagenet(kind)
    images, labels = make_batch(3, 40)
    step = make_step(model, optax.set_to_zero())  # SGD is compared above
    variables, _, report = step(variables, optax.EmptyState(), images, labels)
    self.compare_pass(report, reference, images, labels)
    self.assert_same_state(variables, reference)

  @parameterized.parameters('bitnet34', 'resnet34b')
  def test_deep_imagenet_networks_forward(self, kind):
    """The classes are those of the test above, whose gradients take less time to compile."""
    model, variables, reference = self.make_imagenet(kind)
    images, _ = make_batch(3, 40)
    inputs = torch_images(images)
    self.assert_near(jax.jit(model.apply)(variables, images), reference.eval()(inputs), 'eval')
    train = jax.jit(functools.partial(model.apply, train=True, mutable=['batch_stats']))
    logits, moved = train(variables, images)
    self.assert_near(logits, reference.train()(inputs), 'train')
    self.assert_same_state({**variables, **moved}, reference)

  def make_imagenet(self, kind):
    factor = {} if kind.startswith('bitnet') else {'width_factor': 1 / 8}
    model = models.create_model(kind, num_classes=CLASSES, dtype=jnp.float64, **factor)
    model = narrowed(model, 8) if kind.startswith('bitnet') else model
    variables, reference = random_variables(model, 40), imagenet(kind, 8, CLASSES)
    load(reference, variables)
    return model, variables, reference

  def test_groups_of_batch_norm_are_the_two_devices_of_the_paper(self):
    """Two replicas see half a batch each; gradients and, unlike there, statistics are averaged."""
    model = models.create_model(
      'bitnet', num_classes=CLASSES, width=1, tree_depth=1, num_blocks=1, dtype=jnp.float64,
      batch_norm_group=4,
    )  # fmt: skip
    variables = random_variables(model, 8)
    images, labels = make_batch(8, 8)
    optimizer = optim.make_optimizer(lambda _: 0.1, **TORCH_SGD)
    moved, _, report = make_step(model, optimizer)(
      variables, optimizer.init(variables['params']), images, labels
    )
    replicas, logits = [], []
    for half in (slice(0, 4), slice(4, 8)):
      replica = cifar('bitnet', 1, 1, 1, CLASSES)
      load(replica, variables)
      logits.append(replica.train()(torch_images(images[half])))
      F.cross_entropy(logits[-1], torch.tensor(labels[half])).backward()
      replicas.append(replica)
    self.assert_near(report['logits'], torch.cat(logits), 'logits')
    first, second = (dict(replica.named_parameters()) for replica in replicas)
    for name in first:
      mean = (first[name].grad + second[name].grad) / 2
      self.assert_near(counterpart(name, report), mean, f'gradient of {name}')
    first, second = (replica.state_dict() for replica in replicas)
    for name in first:
      if 'running' in name:
        self.assert_near(counterpart(name, moved), (first[name] + second[name]) / 2, name)


class Float32Test(parameterized.TestCase):
  """What users run: float32 throughout, against PyTorch in float64."""

  def test_bitnet(self):
    model = models.create_model('bitnet', num_classes=CLASSES, width=1, tree_depth=2, num_blocks=1)
    exact = random_variables(model, 14)
    variables = jax.tree.map(np.float32, exact)
    reference = cifar('bitnet', 1, 2, 1, CLASSES)
    load(reference, exact)
    images, labels = make_batch(5, 14)
    optimizer = optim.make_optimizer(lambda _: 0.1, **TORCH_SGD)
    moved, _, report = make_step(model, optimizer)(
      variables, optimizer.init(variables['params']), np.float32(images), np.int32(labels)
    )
    evaluated = reference.eval()(torch_images(images)).detach()
    logits = reference.train()(torch_images(images))
    F.cross_entropy(logits, torch.tensor(labels)).backward()
    torch.optim.SGD(reference.parameters(), lr=0.1, **TORCH_SGD).step()

    def assert_near(got, want, tolerance):
      self.assertEqual(got.dtype, np.float32)
      np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * np.abs(want).max())

    assert_near(report['eval'], evaluated.numpy(), 1e-5)
    assert_near(report['logits'], logits.detach().numpy(), 1e-5)
    for name, parameter in reference.named_parameters():
      assert_near(counterpart(name, report), parameter.grad.numpy(), 1e-4)
    for name in torch_names(reference):
      assert_near(counterpart(name, moved), reference.state_dict()[name].numpy(), 1e-5)


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
    model = model if sizes else narrowed(model, 4)
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
