"""The resident way: a small set lies on every device as uint8, and each step gathers its batch.

An epoch's order is put on the devices once; after that nothing is transferred. The functions
return NumPy arrays; `parallel` places them.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

PADDING = -1


def training_order(order: np.ndarray, global_batch_size: int, num_devices: int) -> np.ndarray:
  """Cuts an epoch's order into batches and these into devices; drops the last partial batch.

  Args:
    order: indices of examples, `[examples]`.
    global_batch_size: examples of a step, over all devices.
    num_devices: all devices of all processes.

  Returns:
    `[devices, steps, batch of a device]`, int32: device d takes the d-th part of each batch.

  Raises:
    ValueError: there are fewer examples than a batch takes, or it does not divide by the devices.
  """
  steps = len(order) // global_batch_size
  if not steps:
    raise ValueError(f'{len(order)} examples do not fill a batch of {global_batch_size}')
  kept = np.asarray(order[: steps * global_batch_size], np.int32)
  return _by_device(kept, steps, num_devices)


def evaluation_order(num_examples: int, batch_size: int, num_devices: int) -> np.ndarray:
  """All examples once, in the order of the data set; the last batch is padded with `PADDING`.

  Args:
    num_examples: of the split.
    batch_size: examples of a step, over all devices.
    num_devices: all devices of all processes.

  Returns:
    `[devices, steps, batch of a device]`, int32.

  Raises:
    ValueError: the batch does not divide by the devices.
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
    step_in_epoch: scalar.

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
