"""The Wide ResNet without shortcuts (d, k, n) on CIFAR-10; the paper has it on CIFAR-100 alone.

Command:
  python -m bitnet_jax.main --config=configs/cifar10_plainnet.py:4,2,6 --workdir=runs/plainnet
Row: 4,2,6 (plainnet-38 of Table 6 and Figure 2).
Hardware, time and error of ours: not run. The paper: two GPUs, hence the batch norm group of 64.
"""

from bitnet_jax.config import cifar_config


def get_config(row='4,2,6'):
  """Returns the configuration of the network (d, k, n) given as `row`."""
  return cifar_config('cifar10', 'plainnet', row)
