"""The Wide ResNet without shortcuts (d, k, n) on CIFAR-100: Table 6 and Figure 2.

Command:
  python -m bitnet_jax.main --config=configs/cifar100_plainnet.py:4,2,6 --workdir=runs/plainnet
Row, with the paper's test error in %: 4,2,6 29.13 (plainnet-38).
Hardware, time and error of ours: not run. The paper: two GPUs, hence the batch norm group of 64.
"""

from bitnet_jax.config import cifar_config


def get_config(row='4,2,6'):
  """Returns the configuration of the network (d, k, n) given as `row`."""
  return cifar_config('cifar100', 'plainnet', row)
