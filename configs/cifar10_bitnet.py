"""BitNet (d, k, n) on CIFAR-10 with the paper's recipe: Tables 2 and 5.

Command:
  python -m bitnet_jax.main --config=configs/cifar10_bitnet.py:4,6,2 --workdir=runs/cifar10_bitnet
Rows, with the paper's test error in %:
  Table 2:
    4,3,4 4.82   4,4,3 4.65   4,2,6 5.31   4,6,2 4.77   10,2,2 4.17
    10,4,1 4.97   10,2,3 3.78   10,3,2 3.81   12,2,4 4.07   12,4,2 4.11
  Table 5:
    4,1,4 4.98   4,2,4 4.68   4,3,4 4.82   4,4,4 4.69   4,5,4 4.69   4,6,4 4.77
    12,1,2 6.02   12,2,2 4.02   12,3,2 3.98   12,4,2 4.11   12,5,2 4.09   12,6,2 4.19
Hardware, time and error of ours: not run. The paper: two GPUs, hence the batch norm group of 64.
"""

from bitnet_jax.config import cifar_config


def get_config(row='4,6,2'):
  """Returns the configuration of the network (d, k, n) given as `row`."""
  return cifar_config('cifar10', 'bitnet', row)
