"""Prints the sum of a convolution of ones."""

import jax
import jax.numpy as jnp

from bitnet_jax.onednn import ops

run = jax.jit(lambda x, kernel: ops.conv(x, kernel, 1).sum())
print(float(run(jnp.ones((1, 4, 4, 8)), jnp.ones((3, 3, 8, 8)))))
