"""Wide ResNet (d, k, n) on CIFAR-100 with the paper's recipe: Tables 2 and 6.

Command:
  python -m bitnet_jax.main --config=configs/cifar100_wide_resnet.py:4,2,6 --workdir=runs/wrn
Rows, with the paper's test error in %:
  4,2,6 22.89   10,2,2 21.59   10,2,3 20.75   12,2,4 20.43
Hardware, time and error of ours: not run. The paper: two GPUs, hence the batch norm group of 64.
"""

from bitnet_jax.config import default_config, set_sizes


def get_config(row='4,2,6'):
  """Returns the configuration of the network (d, k, n) given as `row`."""
  config = default_config()
  set_sizes(config, row)
  config.model.name = 'wide_resnet'
  config.data.name = 'cifar100'
  # Of the 50,000 training images, on the scale 0..255 (fb.resnet.torch, datasets/cifar100.lua).
  config.data.mean = (129.3, 124.1, 112.4)
  config.data.std = (68.2, 65.4, 70.4)
  return config
