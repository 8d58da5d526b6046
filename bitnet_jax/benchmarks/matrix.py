"""The rate at which a device multiplies large matrices, which a network's step is held against."""

from __future__ import annotations

import time

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

# A product takes a GPU some milliseconds, two cores a tenth of a second.
_SIZE = {'cpu': 2048}
_LARGE = 8192
_PRODUCTS = 10


def rate(dtype: str, *, size: int = 0, rounds: int = 5) -> float:
  """Multiply-adds a second of one device, by XLA, the best of some rounds.

  Args:
    dtype: of the operands and the result; sums are kept in float32.
    size: of the square matrices; 0 for one that keeps the device busy.
    rounds: how often ten products are timed.
  """
  size = size or _SIZE.get(jax.default_backend(), _LARGE)
  rng = np.random.default_rng(0)
  # Orthogonal on average, so that products of products stay as large as they are.
  left, right = (
    jnp.asarray(rng.normal(size=(size, size)) / np.sqrt(size), dtype) for _ in range(2)
  )

  @jax.jit
  def multiply(left: jax.Array, right: jax.Array) -> jax.Array:
    def product(_: int, left: jax.Array) -> jax.Array:
      return jnp.dot(left, right, preferred_element_type=jnp.float32).astype(dtype)

    return lax.fori_loop(0, _PRODUCTS, product, left)

  multiply(left, right).block_until_ready()
  seconds = []
  for _ in range(rounds):
    start = time.perf_counter()
    multiply(left, right).block_until_ready()
    seconds.append(time.perf_counter() - start)
  return _PRODUCTS * size**3 / min(seconds)
