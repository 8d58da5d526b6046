"""BitNet (d, k, n) on CIFAR-10 with the paper's recipe: Tables 2, 5 and 6.

Command:
  python -m bitnet_jax.main --config=configs/cifar10_bitnet.py:4,6,2 --workdir=runs/cifar10_bitnet
Rows: 4,3,4  4,4,3  4,2,6  4,6,2  10,2,2  10,4,1  10,2,3  10,3,2  12,2,4  12,4,2 and,
  in Table 5, 4,k,4 and 12,k,2 for k = 1 to 6.
Hardware, time and error of ours: not run. The paper's errors stand in its Table 2; it used two
GPUs, hence the batch norm group of 64.
"""

from bitnet_jax.config import default_config, set_sizes


def get_config(row='4,6,2'):
  """Returns the configuration of the network (d, k, n) given as `row`."""
  config = default_config()
  set_sizes(config, row)
  config.model.name = 'bitnet'
  config.data.name = 'cifar10'
  return config
