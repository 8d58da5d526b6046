"""A member of a cluster ends with an error that stands on stderr already."""

import atexit
import time

from bitnet_jax.distributed import cluster


class Heartbeat:
  def announce_exit(self, line):
    print('told:', line)


# What JAX would do at exit, where a program with effects waits for a lost process.
atexit.register(time.sleep, 1000)
cluster._heartbeat = Heartbeat()
print('said')
cluster.end(7, 'bitnet_jax: error: process=1: lost; run again')
