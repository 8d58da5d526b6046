"""BitNet (d, k, n) on CIFAR-100 with the paper's recipe: Tables 2, 5 and 6.

Command:
  python -m bitnet_jax.main --config=configs/cifar100_bitnet.py:4,6,2 --workdir=runs/cifar100_bitnet
Rows, with the paper's test error in %:
  Table 2:
    4,3,4 22.19   4,4,3 22.60   4,2,6 23.22   4,6,2 23.87   10,2,2 20.48
    10,4,1 23.88   10,2,3 19.29   10,3,2 19.37   12,2,4 19.06   12,4,2 19.22
  Table 5:
    4,1,4 23.54   4,2,4 22.72   4,3,4 22.19   4,4,4 22.65   4,5,4 22.86   4,6,4 22.69
    12,1,2 23.80   12,2,2 19.86   12,3,2 18.97   12,4,2 19.22   12,5,2 18.95   12,6,2 19.51
  Table 6: those of Table 2 with d = 4, and 4,1,2 29.19   4,2,2 25.45   4,4,2 22.72
Hardware, time and error of ours: not run. The paper: two GPUs, hence the batch norm group of 64.
"""

from bitnet_jax.config import cifar_config


def get_config(row='4,6,2'):
  """Returns the configuration of the network (d, k, n) given as `row`."""
  return cifar_config('cifar100', 'bitnet', row)
