"""oneDNN's kernels for the CPU, called from compiled programs, or a whole network at once."""

from bitnet_jax.onednn.custom_call import call as call
from bitnet_jax.onednn.custom_call import matmul as matmul
from bitnet_jax.onednn.custom_call import unavailable as unavailable
from bitnet_jax.onednn.graph import Unsupported as Unsupported
from bitnet_jax.onednn.library import fast_types as fast_types
from bitnet_jax.onednn.library import spin as spin
from bitnet_jax.onednn.primitives import mask_bytes as mask_bytes
from bitnet_jax.onednn.program import Program as Program
