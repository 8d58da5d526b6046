"""Networks: BitNets and the baselines that they are measured against."""

from bitnet_jax.models.registry import MODELS, create_model

__all__ = ['MODELS', 'create_model']
