"""Joins many processes into one run: who writes, what all agree on, and who is lost.

JAX's coordination service, which process 0 runs, brings them together; it also holds a few keys,
through which each process shows the others every second that it lives. Where a peer is lost, JAX
itself would abort the process with a trace of native code; here it ends with one line and exit
code 7, whichever of the two is first.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any, NoReturn

from bitnet_jax import errors
from bitnet_jax.distributed import address as address_lib
from bitnet_jax.distributed import jax_internals
from bitnet_jax.distributed.heartbeat import Heartbeat
from bitnet_jax.runtime import preemption, watchdog

Tree = Any

# JAX notices by itself what the heartbeat has not, and aborts; it comes second by this factor.
_JAX_LATER = 10
_MEET_MILLISECONDS = 3600 * 1000  # Process 0 may be writing a large checkpoint.
_heartbeat: Heartbeat | None = None
_joins: threading.Thread | None = None  # Waits for the others to join.
_on_abort: Any = None  # Kept alive for as long as native code may call it.


@contextlib.contextmanager
def join(
  address: str,
  num_processes: int = 0,
  process_id: int = -1,
  *,
  bind_address: str = '',
  join_seconds: float,
  peer_seconds: float,
  watch: watchdog.Watchdog,
) -> Iterator[None]:
  """Joins a cluster for as long as the `with` block lasts; JAX must not have been used before.

  Args:
    address: HOST:PORT of process 0; 'auto' to ask Slurm, Open MPI, Kubernetes or the TPU pod; ''
      for no cluster.
    num_processes: of the run; 0 with 'auto'.
    process_id: of this process; -1 with 'auto'.
    bind_address: where process 0 listens, `address` if it is ''; '[::]:PORT' for all interfaces.
    join_seconds: longest wait for all to join.
    peer_seconds: a process that gave no sign of life for so long is lost.
    watch: watches the other processes.

  Raises:
    ConfigError: the address, a number, or what the processes were given is wrong.
    PeerError: another process was lost.
    PreemptedError: asked to stop before all had joined.
  """
  if not address:
    yield
    return
  heartbeat = _join(address, num_processes, process_id, bind_address, join_seconds, peer_seconds)
  watch.watch(heartbeat)
  try:
    yield
  except errors.PreemptedError:
    _leave(heartbeat, peer_seconds)
    raise
  except errors.UserError:
    watchdog.take_last_word()
    raise
  except Exception as error:
    if type(error).__name__ == 'JaxRuntimeError' and 'RESOURCE_EXHAUSTED' not in str(error):
      _blame(heartbeat, error, peer_seconds)
    watchdog.take_last_word()
    raise
  _leave(heartbeat, peer_seconds)


def is_primary() -> bool:
  """Returns whether this process reads checkpoints and writes what the run keeps."""
  import jax

  return jax.process_index() == 0


def end(code: int, line: str) -> NoReturn:
  """Ends the process, once the others know; `line` says why and stands on stderr already.

  JAX would wait at exit for processes that wait for this one.
  """
  if _heartbeat:
    _heartbeat.announce_exit(line.removeprefix('bitnet_jax: error: '))
  elif not (_joins and _joins.is_alive()):
    sys.exit(code)
  watchdog.end_now(code)


def broadcast(tree: Tree) -> Tree:
  """Returns process 0's tree on every process.

  Args:
    tree: of NumPy arrays, of the same structure, shapes and types everywhere.
  """
  import jax
  import numpy as np
  from jax.experimental import multihost_utils

  if jax.process_count() == 1:
    return tree
  barrier()
  leaves, structure = jax.tree.flatten(jax.tree.map(np.asarray, tree))
  # As bytes: one transfer, and no type that JAX would narrow.
  flat = [np.ascontiguousarray(leaf).reshape(-1).view(np.uint8) for leaf in leaves]
  received = multihost_utils.broadcast_one_to_all(np.concatenate(flat))
  parts = np.split(np.asarray(received), np.cumsum([len(part) for part in flat])[:-1])
  arrays = [
    part.copy().view(leaf.dtype).reshape(leaf.shape)
    for part, leaf in zip(parts, leaves, strict=True)
  ]
  return jax.tree.unflatten(structure, arrays)


def barrier() -> None:
  """Returns when all processes are here; all call it in the same order. The watchdog goes on."""
  if _heartbeat:
    _heartbeat.barrier(_MEET_MILLISECONDS)


def check_same(values: dict[str, Any]) -> None:
  """Raises ConfigError for the first of these JSON values that process 0 was given otherwise."""
  if _heartbeat is None:
    return
  first = json.loads(_heartbeat.broadcast_string('same', json.dumps(values)))
  for name, value in json.loads(json.dumps(values)).items():
    if value != first.get(name):
      problem = f'process 0 has {first.get(name)}, process {_heartbeat.process_id} has not'
      remedy = 'start all processes with the same command and the same data'
      raise errors.ConfigError(name, value, problem, remedy)


def _join(
  address: str,
  num_processes: int,
  process_id: int,
  bind_address: str,
  join_seconds: float,
  peer_seconds: float,
) -> Heartbeat:
  if address != 'auto':
    address_lib.check(address, num_processes, process_id)
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')  # The line below says it all.
  import jax

  # It would take SIGTERM from our handler, which knows of SIGINT too and lets a third one abort.
  jax.config.update('jax_enable_preemption_service', False)
  local_device_ids = None
  if address == 'auto':
    detected = address_lib.detect(num_processes, process_id)
    address, num_processes, process_id, local_device_ids = detected
  address_lib.check(address, num_processes, process_id)
  bind_address = bind_address or address
  if process_id == 0:
    address_lib.check_port(bind_address)
  given_up = _give_up_after(join_seconds, address, num_processes, process_id)
  _catch_abort(address)
  _initialize(
    address,
    num_processes=num_processes,
    process_id=process_id,
    local_device_ids=local_device_ids,
    cluster_detection_method='deactivate',
    coordinator_bind_address=bind_address,
    **_timeouts(join_seconds, peer_seconds),
  )
  given_up.cancel()
  global _heartbeat
  client = jax_internals.coordinator_client()
  _heartbeat = Heartbeat(process_id, num_processes, peer_seconds, client)
  return _heartbeat


def _timeouts(join_seconds: float, peer_seconds: float) -> dict[str, int]:
  """Returns JAX's own timeouts in seconds, all of which come second to the watchdog's."""
  return {
    'initialization_timeout': int(join_seconds) + 60,
    'heartbeat_timeout_seconds': int(peer_seconds) * _JAX_LATER + 60,
    'shutdown_timeout_seconds': int(peer_seconds) + 60,
  }


def _initialize(address: str, **options: Any) -> None:
  """Calls JAX's own in a thread, because the main thread would hear no signal in native code."""
  import jax

  raised: list[BaseException] = []

  def initialize() -> None:
    try:
      jax.distributed.initialize(address, **options)
    except BaseException as error:
      raised.append(error)

  global _joins
  _joins = threading.Thread(target=initialize, name='joins', daemon=True)
  _joins.start()
  while _joins.is_alive():
    if preemption.requested():
      problem = 'asked to stop before all had joined'
      raise errors.PreemptedError('coordinator_address', address, problem, 'run the command again')
    _joins.join(watchdog.PERIOD)
  if raised:
    raise raised[0]


def _give_up_after(
  seconds: float, address: str, num_processes: int, process_id: int
) -> threading.Timer:
  """Ends the process if it is not canceled in time: JAX aborts when its own time is over."""

  def give_up() -> None:
    if watchdog.take_last_word():
      problem = f'not all of {num_processes} processes joined within {seconds:g} s'
      remedy = f'this is process {process_id}; look for the others, or raise watch.join_seconds'
      watchdog.write_line(str(errors.PeerError('coordinator_address', address, problem, remedy)))
    watchdog.end_now(errors.PeerError.exit_code)

  timer = threading.Timer(seconds, give_up)
  timer.daemon = True
  timer.start()
  return timer


def _catch_abort(address: str) -> None:
  """Makes JAX's abort on a lost coordinator end in our line and exit code.

  Its callback for that case cannot be had: with one written in Python, jaxlib (0.10.2, 0.12.0)
  ends with std::bad_cast. A Python handler of SIGABRT would never run; this one is native.
  """

  def on_abort(_: int) -> None:
    if not watchdog.take_last_word():  # Another thread is about to end the process.
      time.sleep(2 * watchdog.PERIOD + 1)
      watchdog.end_now(errors.PeerError.exit_code)
    step = _heartbeat.step if _heartbeat else 0
    problem = f'process 0, which coordinates, was lost after step {step}'
    remedy = 'or JAX aborted for the reason above; run all processes again to go on'
    watchdog.write_line(str(errors.PeerError('coordinator_address', address, problem, remedy)))
    watchdog.end_now(errors.PeerError.exit_code)

  global _on_abort
  _on_abort = ctypes.CFUNCTYPE(None, ctypes.c_int)(on_abort)
  ctypes.CDLL(None).signal(int(signal.SIGABRT), _on_abort)


def _leave(heartbeat: Heartbeat, peer_seconds: float) -> None:
  """Waits for all processes, then leaves the cluster in order."""
  global _heartbeat
  import jax

  try:
    heartbeat.barrier(_MEET_MILLISECONDS)
  except Exception as error:
    _blame(heartbeat, error, peer_seconds)
    raise
  heartbeat.close()
  jax.distributed.shutdown()
  signal.signal(signal.SIGABRT, signal.SIG_DFL)
  _heartbeat = None


def _blame(heartbeat: Heartbeat, error: Exception, peer_seconds: float) -> None:
  """Waits for the watchdog to find the process at fault for an error of what all do together."""
  heartbeat.shorten_timeout()
  time.sleep(peer_seconds)  # The watchdog ends the process.
  text = next(iter(str(error).splitlines()), '')[:200]
  if any(sign in text.lower() for sign in ('gloo', 'nccl', 'connection', 'barrier')):
    watchdog.take_last_word()
    problem = f'lost the connection to another one ({text})'
    raise errors.PeerError('process', heartbeat.process_id, problem, 'run all again') from error
