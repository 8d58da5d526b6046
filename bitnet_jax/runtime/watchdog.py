"""Ends the process, from a thread, when a run stalls or another process was lost.

A step that waits for a process that is stuck waits for ever: nothing is raised, and JAX's own
heartbeats go on. The thread needs nothing of the main one, which may wait in native code.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import sys
import threading
import time
from typing import NoReturn, Protocol

from bitnet_jax import errors
from bitnet_jax.runtime import output

PERIOD = 0.25  # Seconds between looks.
# What a cluster does before it trains, and what waits for storage.
STARTING, SAVING = 'at the start', 'in a save'
# Times the longest wait, for these, and for what is done for the first time: it is compiled.
_PATIENT = 10
# Times the longest wait so far, which may be longer than what is configured.
_LONGEST = 10
# Times the first wait, which holds more than a step: one step may be as long as the limit.
_COMPILED = 2
# Seconds after which a look that comes too late means that this process was stopped itself.
_STOPPED = 5.0
# Longest time between another thread's last word and the end of the process, in seconds.
_LAST_WORD_SECONDS = 20.0
# Longest wait for output to be taken, in seconds: a pipe may be full, a lock held.
_FLUSH_SECONDS = 2.0

_last_word = threading.Lock()


class Peers(Protocol):
  """Describes what a watchdog asks of a cluster."""

  def fault(self, now: float) -> errors.PeerError | None:
    """Returns what is wrong with another process, None if nothing is."""

  def stalled(self, step: int) -> str:
    """Returns which process the others wait for; '' if that is not known."""

  def add_paused_time(self, seconds: float) -> None:
    """Moves all clocks: this process was stopped for so long."""

  def report(self, step: int) -> None:
    """Takes note of how far this process is."""

  def announce_exit(self, line: str) -> None:
    """Tells the others why this process ends, and waits until they know."""


def take_last_word() -> bool:
  """Returns whether the caller is the first to say why the process ends; others say nothing."""
  return _last_word.acquire(blocking=False)


class Watchdog:
  """Watches for as long as its `with` block lasts."""

  def __init__(self, stall_seconds: float):
    """Starts the thread; the time without a step counts from the first `report`.

    Args:
      stall_seconds: longest time between two reports, ten times that where something is
        done for the first time; 0 for no limit.
    """
    self._limit, self._peers = stall_seconds, None  # type: float, Peers | None
    # What is being done since when: one attribute, because two threads use it.
    self._doing, self._step = ('', 0.0), 0
    self._calls: dict[str, int] = {}
    self._longest: dict[str, float] = {}
    self._first: dict[str, float] = {}
    self._closed = threading.Event()
    self._thread = threading.Thread(target=self._run, name='watchdog', daemon=True)
    self._thread.start()

  def watch(self, peers: Peers) -> None:
    """Watches other processes from now on, and how long this one takes to start."""
    self._peers = peers
    self.report(STARTING)

  def report(self, phase: str, step: int | None = None) -> None:
    """Says that the run has moved on.

    Args:
      phase: what is being done from now on, as 'in training'; '' for what may take any time, as
        `STARTING` may where there are no other processes.
      step: steps begun; None for as many as before.
    """
    now = time.monotonic()
    before, took = self._doing[0], now - self._doing[1]
    durations = self._first if self._calls.get(before, 0) == 1 else self._longest
    durations[before] = max(durations.get(before, 0.0), took)
    self._calls[phase] = self._calls.get(phase, 0) + 1
    self._doing = phase, now
    self.step_started(self._step if step is None else step)

  def step_started(self, step: int) -> None:
    """Says that a step begins, for which the clock goes on."""
    self._step = step
    if self._peers:
      self._peers.report(step)

  def close(self) -> None:
    """Ends the watch."""
    self._closed.set()
    self._thread.join()

  def __enter__(self) -> Watchdog:
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  def limit(self, phase: str) -> float:
    """Returns the seconds that may pass in a phase before the run counts as stalled."""
    patient = phase in (STARTING, SAVING) or self._calls.get(phase, 0) <= 1
    configured = self._limit * (_PATIENT if patient else 1)
    observed = self._longest.get(phase, 0.0) * _LONGEST, self._first.get(phase, 0.0) * _COMPILED
    return max(configured, *observed)

  def _run(self) -> None:
    last = time.monotonic()
    while not self._closed.wait(PERIOD):
      now = time.monotonic()
      if now - last > PERIOD + _STOPPED:
        self._doing = self._doing[0], self._doing[1] + now - last
        if self._peers:
          self._peers.add_paused_time(now - last)
      last = now
      fault = self._stalled(now) or (self._peers.fault(now) if self._peers else None)
      if fault and not self._closed.is_set():
        self._end(fault)

  def _stalled(self, now: float) -> errors.PeerError | None:
    phase, since = self._doing
    seconds = now - since
    if phase == STARTING and not self._peers:  # A large set may be hashed, or decoded.
      return None
    if not self._limit or not phase or seconds <= self.limit(phase):
      return None
    problem = f'no step for {seconds:.0f} s; the last was {self._step}, {phase}'
    behind = self._peers.stalled(self._step) if self._peers else ''
    return errors.PeerError(
      'config.watch.stall_seconds',
      f'{self._limit:g}',
      f'{problem}{behind}',
      'the stacks of all threads are above; run the command again to go on',
    )

  def _end(self, fault: errors.PeerError) -> None:
    if not take_last_word():  # The main thread is ending the process itself: give it time.
      if not self._closed.wait(_LAST_WORD_SECONDS):
        end_now(fault.exit_code)
      return
    faulthandler.dump_traceback(2, all_threads=True)
    write_line(str(fault))
    if self._peers:
      self._peers.announce_exit(str(fault))
    end_now(fault.exit_code)


def write_line(line: str) -> None:
  """Writes an error's line to stderr past Python's buffers, which another thread may hold."""
  output.write(2, f'bitnet_jax: error: {" ".join(line.split())}\n')


def end_now(code: int) -> NoReturn:
  """Ends the process, with what it printed; never waits for a device, nor for whom a lock has.

  `sys.exit` would: JAX waits at exit for programs that have effects, as those of oneDNN's kernels
  do, and one that waits for a lost process never ends.
  """

  def flush() -> None:
    for stream in (sys.stdout, sys.stderr):
      with contextlib.suppress(Exception):
        stream.flush()

  with contextlib.suppress(RuntimeError):  # No thread starts where the interpreter is ending.
    thread = threading.Thread(target=flush, daemon=True)
    thread.start()
    thread.join(_FLUSH_SECONDS)
  os._exit(code)
