"""Measures how a step's time grows with the network, the batch, the image and the devices."""

from __future__ import annotations

import functools
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from bitnet_jax.benchmarks import timing
from bitnet_jax.benchmarks.network import Case
from bitnet_jax.config import validation
from bitnet_jax.distributed import devices

# Values that are varied, one at a time, of a network that takes half a second a step on two cores.
_VARIED: dict[str, tuple[int, ...]] = {
  'model.width': (1, 2, 4, 8),
  'model.tree_depth': (1, 2, 3, 4),
  'model.num_blocks': (1, 2, 4),
  'global_batch_size': (16, 32, 64, 128),
  'data.image_size': (16, 24, 32, 48),
}
_LAYOUTS = ((1, 1), (1, 2), (1, 4), (2, 1))  # Processes, and devices of each.
_DISPATCHES = 200


def measure(config: ml_collections.ConfigDict, *, rounds: int) -> dict[str, Any]:
  """Times steps of a configuration and of its neighbors.

  Args:
    config: a configuration of a network for small images; each field is varied around its values.
    rounds: number of steps that are timed of each case.

  Returns:
    A JSON object: 'cases', each with the field that differs, its value, multiply-adds of the
    forward pass for the batch, and seconds of a step; 'layouts', with processes, devices and
    seconds; 'dispatch', as `dispatch` returns it.
  """
  cases, sides = [], {}
  for field, values in _VARIED.items():
    for value in values:
      varied = config.copy_and_resolve_references()
      varied.update_from_flattened_dict({field: value})
      validation.validate_devices(varied, jax.device_count())
      network = Case(varied)
      cases.append({'field': field, 'value': value, 'multiply_adds': network.multiply_adds()})
      sides[f'{field} {value}'] = network.side()
  for case, seconds in zip(cases, timing.in_turns(sides, rounds).values(), strict=True):
    case |= timing.summary(seconds)
  layouts = [
    {'processes': processes, 'devices': count, **_layout(config, processes, count, rounds)}
    for processes, count in _LAYOUTS
  ]
  return {'cases': cases, 'layouts': layouts, 'dispatch': dispatch(Case(config))}


def _layout(
  config: ml_collections.ConfigDict, processes: int, count: int, rounds: int
) -> dict[str, float]:
  """Times steps that some processes, with `count` devices each, take together."""
  environment = {
    **os.environ,
    'JAX_PLATFORMS': 'cpu',
    'XLA_FLAGS': f'--xla_force_host_platform_device_count={count}',
  }
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    address = f'127.0.0.1:{free.getsockname()[1]}'
  children = []
  for process in range(processes):
    child = subprocess.Popen(
      [sys.executable, '-m', 'bitnet_jax.benchmarks.scaling_child'],
      env=environment,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )
    assert child.stdin
    place = (address if processes > 1 else '', processes, process)
    child.stdin.write(json.dumps({'config': config.to_dict(), 'rounds': rounds, 'place': place}))
    child.stdin.close()
    child.stdin = None
    children.append(child)
  outputs = [child.communicate()[0] for child in children]
  return timing.summary(json.loads(outputs[0].splitlines()[-1]), config.global_batch_size)


def dispatch(case: Case) -> dict[str, float]:
  """Returns the seconds of a call that adds one to every array of the state, by pmap and by jit."""

  def add(state: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf + jnp.ones((), leaf.dtype), state)

  state = jax.tree.map(lambda leaf: np.zeros(1, leaf.dtype), case.state)
  sides = {
    'pmap': _calls(devices.map_devices(add, donate=(0,)), devices.replicate(state)),
    'jit': _calls(jax.jit(add, donate_argnums=0), jax.device_put(state)),
  }
  seconds = timing.in_turns(sides, rounds=7)
  return {name: timing.summary(values)['median'] / _DISPATCHES for name, values in seconds.items()}


def _calls(function: Callable[[Any], Any], state: Any) -> timing.Side:
  def call() -> Any:
    nonlocal state
    state = function(state)
    return state

  return functools.partial(timing.seconds_of, call, _DISPATCHES)
