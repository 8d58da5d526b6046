"""Starts as a run does, for `startup`: reads a configuration from stdin, takes two steps.

Prints the clock after the imports, after the preparation and after the first step, and the seconds
of the second, as a JSON list.
"""

from __future__ import annotations

import json
import sys
import time

from bitnet_jax.runtime import host


def main() -> None:
  """Takes the steps; heavy imports are part of what is timed."""
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
