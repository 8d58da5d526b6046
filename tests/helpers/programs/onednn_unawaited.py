"""Ends without waiting for the results of a convolution; with an argument it drops them first."""

import sys

import jax
import jax.numpy as jnp

from bitnet_jax.onednn import ops

x, kernel = jnp.ones((32, 32, 32, 32)), jnp.ones((3, 3, 32, 32))


@jax.jit
def run(x):
  for _ in range(20):
    x = ops.conv(x, kernel, 1)
  return x


jax.block_until_ready(run(x))
y = run(x)
if sys.argv[1:]:
  del y
