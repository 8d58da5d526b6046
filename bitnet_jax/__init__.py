"""Networks with binary-tree blocks, in JAX and Flax."""
