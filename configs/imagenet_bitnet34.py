"""BitNet-34 on ILSVRC12 with the paper's recipe: Tables 3 and 4.

Command:
  python -m bitnet_jax.main --config=configs/imagenet_bitnet34.py --workdir=runs/imagenet_bitnet34
Hardware, time and error of ours: not run. The paper: 25.46 / 23.77 % top-1 error (one crop / ten
crops) on 8 GPUs, hence the batch norm group of 32.
"""

from bitnet_jax.config import default_config


def get_config():
  """Returns the configuration."""
  config = default_config()
  config.num_epochs = 90.0
  config.global_batch_size = 256
  config.model.name = 'bitnet34'
  config.model.batch_norm_group = 32
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
