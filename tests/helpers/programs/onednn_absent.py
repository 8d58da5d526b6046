"""Chooses kernels where the package of oneDNN is not installed."""

import importlib.metadata as metadata

from bitnet_jax import errors

find_files = metadata.files


def find_others(name):
  if name == 'onednn-cpu-gomp':
    raise metadata.PackageNotFoundError(name)
  return find_files(name)


metadata.files = find_others

from bitnet_jax.models import build  # noqa: E402

print(build.choose_kernels('auto', 'float32').name)
try:
  build.choose_kernels('onednn', 'float32')
except errors.UserError as error:
  print(error)
