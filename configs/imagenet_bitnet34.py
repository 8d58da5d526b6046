"""BitNet-34 on ILSVRC12 with the paper's recipe: Tables 3 and 4.

Command: python -m bitnet_jax.main --config=configs/imagenet_bitnet34.py --workdir=runs/bitnet34
Data: python -m bitnet_jax.prepare --dataset=imagenet2012 --archive_dir=DIR
Hardware, time and error of ours: not run. The paper: 25.46 / 23.77 % top-1 error (one / ten crops)
on 8 GPUs, hence the batch norm group of 32.
"""

from bitnet_jax.config import imagenet_config


def get_config():
  """Returns the configuration."""
  config = imagenet_config()
  config.model.name = 'bitnet34'
  return config
