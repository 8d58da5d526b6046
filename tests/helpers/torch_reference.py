"""An independent PyTorch build of the networks.

It is written from the paper: channels first, left and right of every tree level as two convolutions
with a batch norm each.
"""

import re
import unittest

import jax
import jax.numpy as jnp
import numpy as np

try:
  import torch
  import torch.nn.functional as F
  from torch import nn
except ImportError as error:
  raise unittest.SkipTest(f'PyTorch is not installed: {error}') from error


CLASSES = 7


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


def load(reference, variables):
  reference.double()
  state = {name: torch.tensor(counterpart(name, variables)) for name in torch_names(reference)}
  reference.load_state_dict(state, strict=False)


def make_batch(batch, size, seed=1):
  random = np.random.default_rng(seed)
  return random.normal(size=(batch, size, size, 3)), random.integers(0, CLASSES, batch)


def torch_images(images):
  return torch.tensor(images.transpose(0, 3, 1, 2))
