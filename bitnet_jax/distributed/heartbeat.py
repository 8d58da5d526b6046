"""Exchanges signs of life between the processes of a cluster, by keys of JAX's coordinator.

JAX's heartbeats tell that a process exists, not what it does, and what follows from a missing one
is an abort. Each process writes how far it is, and reads all others', from a thread of its own.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from typing import Any

from bitnet_jax import errors

_ROOT = 'bitnet_jax'
_PERIODS = 10  # Signs of life within the time after which a process is lost.
_LONGEST_PERIOD = 1.0
# Missing signs that are enough where a collective operation has failed already.
_SUSPECT = 4
# Seconds for which a process that another one's error ends may still end by its own.
_GRACE = 3.0
# Seconds that process 0, without which JAX aborts the others, waits for them to end first.
_LINGER = 5.0
_RETRY_MILLISECONDS = 1000


class Heartbeat:
  """Sends one process's signs of life, and holds what it knows of the others.

  Attributes:
    process_id: this process.
    step: steps begun.
  """

  def __init__(self, process_id: int, num_processes: int, peer_seconds: float, client: Any):
    """Starts the thread.

    Args:
      process_id: of this process, which has joined.
      num_processes: of the cluster.
      peer_seconds: a process that gave no sign for so long is lost.
      client: of JAX's coordination service.
    """
    self._client = client
    self.process_id, self.step = process_id, 0
    self._lost_after = peer_seconds
    self._period = min(peer_seconds / _PERIODS, _LONGEST_PERIOD)
    now = time.monotonic()
    self._signs: dict[int, dict[str, Any]] = {}
    self._seen = {other: now for other in range(num_processes) if other != process_id}
    self._answered = now
    self._first_error: float | None = None
    self._line, self._meetings = '', 0
    self._posted, self._wake, self._closed = (threading.Event() for _ in range(3))
    self._thread = threading.Thread(target=self._run, name='heartbeat', daemon=True)
    self._thread.start()

  def report(self, step: int) -> None:
    """Takes note of how far this process is."""
    self.step = step

  def shorten_timeout(self) -> None:
    """Takes a process for lost sooner: a collective operation has failed."""
    self._lost_after = min(self._lost_after, _SUSPECT * self._period)

  def add_paused_time(self, seconds: float) -> None:
    """Moves all clocks: this process was stopped for so long."""
    self._seen = {other: when + seconds for other, when in self._seen.items()}
    self._answered += seconds

  def fault(self, now: float) -> errors.PeerError | None:
    """Returns what is wrong with another process, None if nothing is."""
    for other, when in self._seen.items():
      line = self._signs.get(other, {}).get('line', '')
      if line:
        self._first_error = self._first_error or now
        if now - self._first_error > (0 if line.startswith('process=') else _GRACE):
          return self._ended(other, line)
      elif now - when > self._lost_after:
        return self._silent(other, now - when)
    if now - self._answered > self._lost_after:
      return self._silent(0, now - self._answered)
    return None

  def stalled(self, step: int) -> str:
    """Returns which process the others wait for; '' if that is not known."""
    steps = {other: sign['step'] for other, sign in self._signs.items()}
    behind = [other for other in sorted(steps) if steps[other] < step]
    if not behind:
      return ''
    return f'; process {behind[0]} is behind, at step {steps[behind[0]]}'

  def announce_exit(self, line: str) -> None:
    """Tells the others why this process ends, and waits until they know."""
    self._line = line
    self._wake.set()
    self._posted.wait(1 + self._period)
    if self.process_id:
      return
    deadline = time.monotonic() + _LINGER
    while time.monotonic() < deadline:
      now = time.monotonic()
      alive = [
        other
        for other, when in self._seen.items()
        if now - when < 3 * self._period and not self._signs.get(other, {}).get('line')
      ]
      if not alive:
        time.sleep(2 * self._period)  # They have said it, and are about to end.
        return
      time.sleep(self._period / 2)

  def broadcast_string(self, name: str, value: str) -> str:
    """Returns what process 0 gave under this name, once it has."""
    key = f'{_ROOT}-{name}'
    if self.process_id == 0:
      self._client.key_value_set(key, value, allow_overwrite=True)
      return value
    while True:  # The watchdog ends a wait that is in vain.
      with contextlib.suppress(Exception):
        return self._client.blocking_key_value_get(key, _RETRY_MILLISECONDS)
      time.sleep(self._period)

  def barrier(self, milliseconds: int) -> None:
    """Returns when all processes have called it as often as this one."""
    self._meetings += 1
    self._client.wait_at_barrier(f'{_ROOT}-{self._meetings}', milliseconds)

  def close(self) -> None:
    """Ends the signs of life."""
    self._closed.set()
    self._wake.set()
    self._thread.join()

  def _run(self) -> None:
    number = 0
    while not self._closed.is_set():
      number, line = number + 1, self._line
      sign = json.dumps({'number': number, 'step': self.step, 'line': line})
      with contextlib.suppress(Exception):  # An RPC that fails counts as one without an answer.
        self._client.key_value_set(f'{_ROOT}/{self.process_id}', sign, allow_overwrite=True)
        entries = self._client.key_value_dir_get(f'{_ROOT}/')
        self._answered = time.monotonic()
        for key, value in entries:
          self._read(int(key.rpartition('/')[2]), json.loads(value))
      if line:
        self._posted.set()
      self._wake.wait(self._period)
      self._wake.clear()

  def _read(self, other: int, sign: dict[str, Any]) -> None:
    if other != self.process_id and sign != self._signs.get(other):
      self._signs[other] = sign
      self._seen[other] = time.monotonic()

  def _ended(self, other: int, line: str) -> errors.PeerError:
    if line.startswith('process='):  # What ended it is a third one's fault.
      field, _, rest = line.partition('=')
      value, _, rest = rest.partition(': ')
      problem, _, remedy = rest.rpartition('; ')
      return errors.PeerError(field, value, problem, remedy)
    problem = f'it ended at step {self._signs[other]["step"]}, this one at {self.step}: {line}'
    return errors.PeerError('process', other, problem, 'run all processes again')

  def _silent(self, other: int, seconds: float) -> errors.PeerError:
    step = self._signs.get(other, {}).get('step', 0)
    problem = f'lost: no sign of life for {seconds:.1f} s, last seen at step {step}'
    remedy = f'this one was at step {self.step}; run all processes again to go on'
    return errors.PeerError('process', other, problem, remedy)
