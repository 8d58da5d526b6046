"""The configuration of a run: its fields, their defaults and what is wrong with a value."""

from bitnet_jax.config.defaults import default_config as default_config
from bitnet_jax.config.defaults import set_sizes as set_sizes
from bitnet_jax.config.recipes import cifar_config as cifar_config
from bitnet_jax.config.recipes import imagenet_config as imagenet_config
