"""Takes steps as one of several processes of `scaling` and prints their seconds as a JSON list."""

from __future__ import annotations

import json
import sys

from bitnet_jax.config import default_config
from bitnet_jax.distributed import cluster
from bitnet_jax.runtime import watchdog

_WARM_UP = 2


def main() -> None:
  """Joins the processes that stdin names and takes the steps."""
  request = json.load(sys.stdin)
  config = default_config()
  config.update(request['config'])
  with (
    watchdog.Watchdog(0) as watch,
    cluster.join(*request['place'], join_seconds=60, peer_seconds=60, watch=watch),
  ):
    from bitnet_jax.benchmarks.network import Case

    run = Case(config).side()
    print(json.dumps([run() for _ in range(_WARM_UP + request['rounds'])][_WARM_UP:]))


if __name__ == '__main__':
  main()
