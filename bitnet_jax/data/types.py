"""Defines the types that the data pipeline and the training step share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax

Tree = Any
Batch = dict[str, jax.Array]
# (arrays that the loop passes to each step, number of the batch in them) -> batch.
FetchBatch = Callable[[Tree, jax.Array], Batch]
# (uint8 images, step, positions in the global batch) -> float32 images.
AugmentBatch = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]
