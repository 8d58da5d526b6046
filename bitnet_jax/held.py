"""A directory that is held open: known from another one that was made at the same path since."""

from __future__ import annotations

import errno
import os
import pathlib

from bitnet_jax import errors

_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)


class Held:
  """A directory of a run, for as long as the process lives or until `close`.

  A file system gives the number of a removed directory to the next one that is made, but not while
  somebody holds the old one open.

  Attributes:
    path: where it was.
    descriptor: of the open directory; -1 once it is closed.
  """

  def __init__(self, path: str | os.PathLike[str]):
    """Opens the directory; raises OSError."""
    self.path = pathlib.Path(path).absolute()
    self.descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)

  def check(self) -> None:
    """Raises StorageError where the path does not lead to the directory any more."""
    problem, remedy = 'it was removed while the run went on', 'run the command again'
    try:
      if os.path.samestat(os.fstat(self.descriptor), self.path.stat()):
        return
    except OSError as error:
      if error.errno not in _GONE:
        problem, remedy = f'cannot be reached ({error.strerror})', errors.remedy_of(error.errno)
    raise errors.StorageError('workdir', self.path, problem, remedy)

  def close(self) -> None:
    """Lets go of it."""
    if self.descriptor >= 0:
      os.close(self.descriptor)
      self.descriptor = -1
