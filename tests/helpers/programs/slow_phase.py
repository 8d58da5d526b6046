"""The training command, which tells of a phase on stderr and waits there long enough to be found.

$MODULE is a module of the package and $FUNCTION what begins the phase there, by its dotted name.
"""

import importlib
import operator
import os
import sys
import time

from bitnet_jax import main
from bitnet_jax.runtime import cli


def slowed(function):
  def slow(*arguments, **options):
    result = function(*arguments, **options)
    print('PHASE', file=sys.stderr, flush=True)
    time.sleep(1)
    return result

  return slow


if __name__ == '__main__':
  owner = importlib.import_module(f'bitnet_jax.{os.environ["MODULE"]}')
  *path, name = os.environ['FUNCTION'].split('.')
  if path:
    owner = operator.attrgetter('.'.join(path))(owner)
  setattr(owner, name, slowed(getattr(owner, name)))
  cli.run(main.main, ['main', *sys.argv[1:]])
