"""What several configurations share."""

from __future__ import annotations

import ml_collections

from bitnet_jax.config.fields import default_config


def imagenet_config() -> ml_collections.ConfigDict:
  """The paper's ILSVRC12 recipe (section 4.2), with the augmentation of fb.resnet.torch."""
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
