"""Gives the training loop one object for the watchdog, the other processes and requests to stop."""

from __future__ import annotations

import jax

from bitnet_jax import errors
from bitnet_jax.distributed import cluster, devices
from bitnet_jax.runtime import preemption
from bitnet_jax.runtime.watchdog import Watchdog


def stop_waiting() -> bool:
  """Returns whether to give up waiting for a batch, which one process of several must not.

  The others would enter the step that it leaves out.
  """
  return jax.process_count() == 1 and preemption.requested()


class RunControl:
  """What a run reports to, and asks whether it has to stop.

  Attributes:
    is_primary: whether this process reads checkpoints and writes what the run keeps.
  """

  def __init__(self, watch: Watchdog, *, delay: int = 0):
    """Makes the control of a run; all processes have joined.

    Args:
      watch: ends a run that stalls.
      delay: calls of `stop_requested` after which an answer is waited for.
    """
    self._watch = watch
    self.is_primary = cluster.is_primary()
    self._consensus = devices.StopConsensus(preemption.requested, delay=delay)

  def report(self, phase: str, step: int | None = None) -> None:
    """Tells the watchdog that the run has moved on; see `Watchdog.report`."""
    self._watch.report(phase, step)

  def step_started(self, step: int) -> None:
    """Tells the watchdog that a step begins, for which the clock goes on."""
    self._watch.step_started(step)

  def barrier(self) -> None:
    """Returns when all processes are here; all call it in the same order."""
    cluster.barrier()

  def stop_requested(self, *, now: bool = False) -> bool:
    """Returns whether any process was asked to stop: the same answer on all.

    All processes call it in the same order. The answer is that of a few calls ago, but with `now`
    that of this very call.
    """
    return self._consensus(now=now)

  def raise_if_stop_requested(self, step: int) -> None:
    """Raises PreemptedError, in all processes, if one was asked to stop; nothing is saved.

    Processes may come minutes apart, after which a collective operation gives up: they meet first.
    """
    self.barrier()
    if self.stop_requested(now=True):
      raise errors.PreemptedError('step', step, 'asked to stop', 'run the command again')
