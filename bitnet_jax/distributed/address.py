"""Finds and checks where the processes of a cluster meet: HOST:PORT of process 0."""

from __future__ import annotations

import socket
from typing import Any

from bitnet_jax import errors
from bitnet_jax.distributed import jax_internals


def detect(num_processes: int, process_id: int) -> tuple[str, int, int, Any]:
  """Returns address, number of processes, this one's number and its devices, as JAX finds them."""
  address, count, number, local_device_ids = jax_internals.detect_cluster(num_processes, process_id)
  if address is None or count is None or number is None:
    raise errors.ConfigError(
      'coordinator_address',
      'auto',
      'no Slurm, Open MPI, Kubernetes or TPU pod is found here',
      'give --coordinator_address=HOST:PORT --num_processes=N --process_id=I',
    )
  return address, count, number, local_device_ids


def check(address: str, num_processes: int, process_id: int) -> None:
  """Raises ConfigError for what is no address, number of processes or number of one of them."""
  host, _, port = address.rpartition(':')
  if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
    raise errors.ConfigError(
      'coordinator_address', address, 'not HOST:PORT', 'write it like 10.0.0.1:1234, or auto'
    )
  if num_processes < 1:
    raise errors.ConfigError('num_processes', num_processes, 'less than 1', 'give how many join')
  if not 0 <= process_id < num_processes:
    problem = f'not a number of {num_processes} processes'
    remedy = f'use one from 0 to {num_processes - 1}, another for each process'
    raise errors.ConfigError('process_id', process_id, problem, remedy)


def check_port(address: str) -> None:
  """Raises ConfigError where JAX could not listen: it would crash."""
  host, _, port = address.rpartition(':')
  try:
    family, kind, *_, place = socket.getaddrinfo(host.strip('[]'), int(port), 0, 1)[0]
    with socket.socket(family, kind) as probe:
      probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
      probe.bind(place)
  except (OSError, ValueError) as error:
    problem = f'cannot listen there: {getattr(error, "strerror", None) or error}'
    remedy = 'name an address of this machine and a port that is free'
    raise errors.ConfigError('coordinator_address', address, problem, remedy) from error
