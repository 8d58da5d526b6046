"""A configuration file that raises an error of the package."""

from bitnet_jax import errors


def get_config():
  raise errors.CheckpointError('a', 1, 'b', 'c')
