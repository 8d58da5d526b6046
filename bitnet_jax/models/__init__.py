"""Networks: BitNets and the baselines that they are measured against."""

from bitnet_jax.models.registry import create_model

__all__ = ['create_model']
