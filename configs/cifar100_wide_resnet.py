"""Wide ResNet (d, k, n) on CIFAR-100 with the paper's recipe: Tables 2 and 6.

Command:
  python -m bitnet_jax.main --config=configs/cifar100_wide_resnet.py:4,2,6 --workdir=runs/wrn
Rows, with the paper's test error in %:
  4,2,6 22.89   10,2,2 21.59   10,2,3 20.75   12,2,4 20.43
Hardware, time and error of ours: not run. The paper: two GPUs, hence the batch norm group of 64.
"""

from bitnet_jax.config import cifar_config


def get_config(row='4,2,6'):
  """Returns the configuration of the network (d, k, n) given as `row`."""
  return cifar_config('cifar100', 'wide_resnet', row)
