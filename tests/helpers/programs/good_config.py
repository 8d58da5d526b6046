"""A configuration of a few fields, for the tests of the command line."""

from ml_collections import ConfigDict


def get_config(variant=''):
  del variant
  config = ConfigDict({'seed': 1, 'on': True, 'rate': 0.1, 'optim': {'learning_rate': 0.1}})
  config.lock()
  return config
