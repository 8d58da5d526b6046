"""The training command, which tells when it begins to wait for the others of its cluster."""

import sys

import jax

from bitnet_jax import main
from bitnet_jax.distributed import cluster
from bitnet_jax.runtime import cli

initialize = jax.distributed.initialize


def tell(*arguments, **options):
  print('JOINS', flush=True)
  initialize(*arguments, **options)


if __name__ == '__main__':
  jax.distributed.initialize = tell
  cli.run(main.main, ['main', *sys.argv[1:]], end=cluster.end)
