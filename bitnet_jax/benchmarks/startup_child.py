"""Starts as a run does, with a configuration from stdin, and takes two steps for `startup`.

The process prints a JSON list: the clock after the imports, after the preparation and after the
first step, and the seconds of the second step.
"""

from __future__ import annotations

import json
import sys
import time

from bitnet_jax.runtime import host


def main() -> None:
  """Takes the steps; the heavy imports are part of the timing."""
  host.keep_freed_memory()
  with host.gc_paused():
    from bitnet_jax.benchmarks.network import Case
    from bitnet_jax.config import default_config
    from bitnet_jax.training import compilation

    imported = time.time()
    compilation.enable_persistent_cache()
    config = default_config()
    config.update(json.load(sys.stdin))
    run = Case(config).side()
  prepared = time.time()
  run()
  first = time.time()
  print(json.dumps([imported, prepared, first, run()]))


if __name__ == '__main__':
  main()
