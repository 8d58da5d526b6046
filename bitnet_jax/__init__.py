"""Networks with binary-tree blocks, in JAX and Flax."""

from bitnet_jax.runtime import interrupt

interrupt.end_imports()
