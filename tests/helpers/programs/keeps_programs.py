"""Prints where compiled programs are kept; with an argument, the cache hits of a compilation."""

import sys

import jax

from bitnet_jax.training import compilation

events = []
jax.monitoring.register_event_listener(lambda name, **_: events.append(name))
print(compilation.enable_persistent_cache() or '-', jax.config.jax_compilation_cache_dir)
if sys.argv[1:]:
  jax.jit(lambda x: x * 3 + 1)(2.0)
  print(events.count('/jax/compilation_cache/cache_hits'))
