"""Wide ResNet (d, k, n) on CIFAR-10 with the paper's recipe: Table 2.

Command:
  python -m bitnet_jax.main --config=configs/cifar10_wide_resnet.py:4,2,6 --workdir=runs/wrn
Rows, with the paper's test error in %:
  4,2,6 4.97   10,2,2 4.56   10,2,3 4.44   12,2,4 4.33
Hardware, time and error of ours: not run. The paper: two GPUs, hence the batch norm group of 64.
"""

from bitnet_jax.config import cifar_config


def get_config(row='4,2,6'):
  """Returns the configuration of the network (d, k, n) given as `row`."""
  return cifar_config('cifar10', 'wide_resnet', row)
