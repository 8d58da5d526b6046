"""Defines flags for paths as people write them: with ~, and on this machine alone."""

from __future__ import annotations

import os
import re
from typing import Any

from absl import flags

from bitnet_jax import errors

flags.disclaim_key_flags()  # They are those of the command that defines them here.

_URL = re.compile(r'[a-zA-Z][\w+.-]*://')


def local(field: str, path: str) -> str:
  """Returns the path with ~ or ~NAME expanded.

  Args:
    field: what has it as its value.
    path: as it was given.

  Raises:
    ConfigError: it is a URL, of which Python would make directories here.
  """
  if _URL.match(path):
    remedy = 'mount or copy it, and name a directory or file of this machine'
    raise errors.ConfigError(field, path, 'a URL', remedy)
  return os.path.expanduser(path)


def define(
  name: str, default: str | None, text: str, *, required: bool = False
) -> flags.FlagHolder[Any]:
  """Defines a flag that takes the path of a file or directory; `text` is its help."""
  return flags.DEFINE(
    _Parser(name), name, default, text, serializer=flags.ArgumentSerializer(), required=required
  )


def define_many(
  name: str, default: list[str] | None, text: str, *, required: bool = False
) -> flags.FlagHolder[Any]:
  """Defines a flag that may be given several times, a path each."""
  return flags.DEFINE_multi(
    _Parser(name), flags.ArgumentSerializer(), name, default, text, required=required
  )


class _Parser(flags.ArgumentParser):
  """Turns what is on the command line into a local path."""

  def __init__(self, name: str):
    """Makes the parser of the flag of that name."""
    super().__init__()
    self._name = name

  def parse(self, argument: str) -> str:
    """Returns the path, with ~ expanded."""
    return local(self._name, argument)
