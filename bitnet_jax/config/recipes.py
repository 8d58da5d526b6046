"""Holds the paper's recipes by data set, for the files in `configs/` and for the audit."""

from __future__ import annotations

from typing import Any

import ml_collections

from bitnet_jax.config.defaults import default_config, flatten, set_sizes


def cifar_config(dataset: str, model: str, row: str) -> ml_collections.ConfigDict:
  """Returns the paper's CIFAR recipe (section 4.1) for a network.

  Args:
    dataset: 'cifar10' or 'cifar100'.
    model: 'bitnet', 'wide_resnet' or 'plainnet'.
    row: its (d, k, n), as '4,6,2'.

  Raises:
    ConfigError: `row` is not three whole numbers.
  """
  config = default_config()
  set_sizes(config, row)
  config.model.name = model
  config.data.name = dataset
  if dataset == 'cifar100':
    # Of the 50,000 training images, on the scale 0..255 (fb.resnet.torch, datasets/cifar100.lua).
    config.data.mean = (129.3, 124.1, 112.4)
    config.data.std = (68.2, 65.4, 70.4)
  return config


def imagenet_config() -> ml_collections.ConfigDict:
  """Returns the paper's ILSVRC12 recipe (section 4.2), augmented as in fb.resnet.torch."""
  config = default_config()
  config.num_epochs = 90.0
  config.global_batch_size = 256
  config.model.batch_norm_group = 32  # 256 on 8 GPUs.
  config.data.name = 'imagenet2012'
  config.data.test_split = 'validation'
  config.data.image_size = 224
  config.data.pipeline = 'stream'
  config.data.train_crop = 'random_area'
  # Of the training images, on the scale 0..255 (fb.resnet.torch, datasets/imagenet.lua).
  config.data.mean = (123.675, 116.28, 103.53)
  config.data.std = (58.395, 57.12, 57.375)
  config.augment.pad = 0
  config.augment.jitter = 0.4
  config.augment.lighting = 0.1
  config.optim.drop_epochs = (31, 61)
  config.optim.drop_factor = 0.1
  config.optim.weight_decay = 1e-4
  config.eval.batch_size = 256
  config.eval.resize = 256
  config.log.every_steps = 100
  return config


def recipe_of(dataset: str) -> dict[str, Any]:
  """Returns every field of the paper's recipe for a data set, by its dotted name.

  A data set that the paper has no recipe for gets that of CIFAR-10.
  """
  if dataset == 'imagenet2012':
    return dict(flatten(imagenet_config()))
  dataset = dataset if dataset == 'cifar100' else 'cifar10'
  return dict(flatten(cifar_config(dataset, 'bitnet', '4,6,2')))
