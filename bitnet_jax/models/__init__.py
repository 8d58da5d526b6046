"""Defines the networks of the paper: BitNets and the baselines they are measured against."""

from bitnet_jax.models.registry import create_model

__all__ = ['create_model']
