"""A small BitNet on scikit-learn's handwritten digits (8x8, grey): the quickstart.

Reproduces no row of the paper: it shows in two minutes on a CPU that training works.
Command: python -m bitnet_jax.main --config=configs/digits_bitnet.py --workdir=runs/digits
"""

from bitnet_jax.config import default_config


def get_config():
  """Returns the configuration."""
  config = default_config()
  config.num_epochs = 30.0
  config.global_batch_size = 64
  config.model.width = 2
  config.model.tree_depth = 3
  config.model.num_blocks = 1
  config.model.batch_norm_group = 0
  config.data.name = 'digits'
  config.data.mean = (77.9,)
  config.data.std = (95.7,)
  config.augment.pad = 1
  config.augment.flip = False
  config.optim.drop_epochs = (10, 20, 25)
  config.eval.batch_size = 120
  config.eval.every_epochs = 1
  config.checkpoint.every_epochs = 5
  config.log.every_steps = 11
  return config
