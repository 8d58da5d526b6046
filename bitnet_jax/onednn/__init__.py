"""Calls oneDNN's kernels for the CPU from compiled programs, for the models."""

from bitnet_jax.onednn.custom_call import unavailable as unavailable
from bitnet_jax.onednn.kernels import make_kernels as make_kernels
