"""The Wide ResNet without shortcuts (d, k, n) on CIFAR-100: Table 6 and Figure 2.

Command:
  python -m bitnet_jax.main --config=configs/cifar100_plainnet.py:4,2,6 --workdir=runs/plainnet
Row, with the paper's test error in %: 4,2,6 29.13 (plainnet-38).
Hardware, time and error of ours: not run. The paper: two GPUs, hence the batch norm group of 64.
"""

from bitnet_jax.config import default_config, set_sizes


def get_config(row='4,2,6'):
  """Returns the configuration of the network (d, k, n) given as `row`."""
  config = default_config()
  set_sizes(config, row)
  config.model.name = 'plainnet'
  config.data.name = 'cifar100'
  # Of the 50,000 training images, on the scale 0..255 (fb.resnet.torch, datasets/cifar100.lua).
  config.data.mean = (129.3, 124.1, 112.4)
  config.data.std = (68.2, 65.4, 70.4)
  return config
