"""Shows a person how a run goes on: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from typing import Any

from tqdm import tqdm


class ProgressBar:
  """Shows epoch, loss, error, speed and time left."""

  def __init__(self, *, step: int, total_steps: int, steps_per_epoch: int):
    """Starts the bar.

    Args:
      step: steps taken so far.
      total_steps: of the run.
      steps_per_epoch: steps of an epoch.
    """
    self._total_steps = total_steps
    self._steps_per_epoch = steps_per_epoch
    self._bar = tqdm(
      total=total_steps, initial=step, unit='step', disable=not sys.stderr.isatty(), smoothing=0.05
    )

  def advance(self, step: int) -> None:
    """Moves the bar to `step` steps taken."""
    self._bar.update(step - self._bar.n)

  def interval(self, step: int, values: dict[str, float]) -> None:
    """Shows the metrics of a logging interval: loss, error and, once timed, images/s."""
    text = f'loss {values["loss"]:.4f}  error {values["error"]:.2%}'
    left = ''
    if 'images_per_second' in values:  # Not after the first step alone, which compiles.
      text += f'  {values["images_per_second"]:,.0f} images/s'
      left = f'  {_duration((self._total_steps - step) * values["seconds_per_step"])} left'
    if self._bar.disable:
      self.line(f'{self._where(step)}  {text}{left}')
    else:
      self._bar.set_description_str(f'epoch {step / self._steps_per_epoch:.1f}', refresh=False)
      self._bar.set_postfix_str(text)

  def evaluated(self, step: int, values: dict[str, float]) -> None:
    """Shows the result of an evaluation."""
    self.line(
      f'{self._where(step)}  test loss {values["loss"]:.4f}  test error {values["error"]:.2%} '
      f'({values["count"] - values["correct"]}/{values["count"]} wrong)'
    )

  def line(self, text: str) -> None:
    """Prints a line without breaking the bar."""
    if self._bar.disable:
      print(text, flush=True)
    else:
      tqdm.write(text)

  def close(self) -> None:
    """Leaves the bar as it is."""
    self._bar.close()

  def _where(self, step: int) -> str:
    epochs = self._total_steps / self._steps_per_epoch
    epoch = step / self._steps_per_epoch
    return f'epoch {epoch:.1f}/{epochs:g}  step {step}/{self._total_steps}'


class Silent:
  """Replaces writer and progress bar in all processes but the primary one."""

  def advance(self, *_: Any) -> None:
    """Does nothing."""

  write = interval = evaluated = line = close = advance


def _duration(seconds: float) -> str:
  minutes, seconds = divmod(int(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f'{hours}:{minutes:02}:{seconds:02}'
