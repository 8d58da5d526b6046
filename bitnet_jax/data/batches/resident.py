"""Groups the examples of a resident data set into batches, and gathers a batch on the device.

The data set lies on every device as uint8. An epoch's order is placed on the devices once; after
that nothing is transferred. `distributed.devices` places the NumPy arrays that are returned here.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

PADDING = -1


def training_order(order: np.ndarray, global_batch_size: int, num_devices: int) -> np.ndarray:
  """Cuts an epoch's order into batches, and batches into devices; drops the last partial batch.

  Args:
    order: indices of examples, `[examples]`.
    global_batch_size: examples of a step, over all devices.
    num_devices: devices of all processes.

  Returns:
    `[devices, steps, batch of a device]`, int32: device d takes the d-th part of each batch.

  Raises:
    ValueError: the examples do not fill a batch, or the batch does not divide among the devices.
  """
  steps = len(order) // global_batch_size
  if not steps:
    raise ValueError(f'{len(order)} examples do not fill a batch of {global_batch_size}')
  kept = np.asarray(order[: steps * global_batch_size], np.int32)
  return _by_device(kept, steps, num_devices)


def evaluation_order(num_examples: int, batch_size: int, num_devices: int) -> np.ndarray:
  """Returns all examples once, in the order of the data set, the last batch padded by `PADDING`.

  Args:
    num_examples: examples of the split.
    batch_size: examples of a step, over all devices.
    num_devices: devices of all processes.

  Returns:
    `[devices, steps, batch of a device]`, int32.

  Raises:
    ValueError: the batch does not divide among the devices.
  """
  steps = -(-num_examples // batch_size)
  padded = np.full(steps * batch_size, PADDING, np.int32)
  padded[:num_examples] = np.arange(num_examples)
  return _by_device(padded, steps, num_devices)


def _by_device(indices: np.ndarray, steps: int, num_devices: int) -> np.ndarray:
  if len(indices) // steps % num_devices:
    raise ValueError(f'a batch of {len(indices) // steps} does not divide by {num_devices} devices')
  return np.ascontiguousarray(indices.reshape(steps, num_devices, -1).transpose(1, 0, 2))


def fetch_batch(inputs: Any, step_in_epoch: jax.Array) -> dict[str, jax.Array]:
  """Gathers a step's batch on the device.

  Args:
    inputs: 'image' `[examples, height, width, channels]`, uint8; 'label' `[examples]`, int32;
      'order' `[steps, batch]`, int32, `PADDING` where there is no example.
    step_in_epoch: scalar, counted from 0.

  Returns:
    'image' `[batch, height, width, channels]`, uint8; 'label' `[batch]`; 'mask' `[batch]`, float32.
  """
  order = jax.lax.dynamic_index_in_dim(inputs['order'], step_in_epoch, keepdims=False)
  index = jnp.maximum(order, 0)
  return {
    'image': jnp.take(inputs['image'], index, axis=0),
    'label': jnp.take(inputs['label'], index, axis=0),
    'mask': (order != PADDING).astype(jnp.float32),
  }
