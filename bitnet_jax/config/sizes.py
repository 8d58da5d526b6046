"""Decides which sizes fit each other, for the validation of a configuration and for the models.

The functions are pure arithmetic: the configuration is read before JAX is loaded.
"""

from __future__ import annotations


def tree_fits(features: int, tree_depth: int) -> bool:
  """Returns whether a binary tree of that depth can halve `features` at every level."""
  return tree_depth >= 1 and features % 2**tree_depth == 0


def nearest_multiples(value: int, unit: int) -> tuple[int, int]:
  """Returns the positive multiples of `unit` around `value`, for a remedy.

  >>> nearest_multiples(100, 64), nearest_multiples(5, 64)
  ((64, 128), (64, 64))
  """
  lower = value // unit * unit
  return lower or unit, lower + unit


def group_layout(local_batch: int, group_size: int, num_devices: int) -> tuple[int, int] | None:
  """Lays batch norm's groups on the devices.

  Args:
    local_batch: examples on one device, 1 or more.
    group_size: examples that share statistics; 0 for the whole batch of all devices.
    num_devices: devices that share the batch.

  Returns:
    (groups on a device, devices of a group), one of which is 1; None where the group neither
    divides a device's batch nor is a multiple of that batch that divides the devices.

  >>> group_layout(128, 64, 1), group_layout(32, 64, 8), group_layout(48, 64, 1)
  ((2, 1), (1, 2), None)
  """
  group_size = group_size or local_batch * num_devices
  if local_batch % group_size == 0:
    return local_batch // group_size, 1
  devices = group_size // local_batch
  if group_size % local_batch == 0 and num_devices % devices == 0:
    return 1, devices
  return None
