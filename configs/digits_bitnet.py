"""A small BitNet on scikit-learn's handwritten digits (8x8, gray): the quickstart.

Reproduces no row of the paper: it shows within a minute on a CPU that training works.
Command: python -m bitnet_jax.main --config=configs/digits_bitnet.py --workdir=runs/digits
Two CPU cores, 22 s of training; test error 1.7 % with JAX 0.10 and with 0.12 (seed 0).
"""

from bitnet_jax.config import default_config


def get_config():
  """Returns the configuration."""
  config = default_config()
  config.num_epochs = 40.0
  config.global_batch_size = 64
  config.model.width = 2
  config.model.tree_depth = 3
  config.model.num_blocks = 1
  config.model.batch_norm_group = 0
  config.data.name = 'digits'
  config.data.mean = (77.9,)
  config.data.std = (95.7,)
  # Enlarged as they are read: two strides of 2 would leave 2 of the 8 pixels.
  config.data.image_size = 16
  config.augment.pad = 2
  config.augment.flip = False
  config.optim.schedule = 'cosine'
  config.optim.weight_decay = 0.002
  config.eval.batch_size = 120
  config.eval.every_epochs = 2
  config.checkpoint.every_epochs = 10
  config.log.every_steps = 22
  return config
