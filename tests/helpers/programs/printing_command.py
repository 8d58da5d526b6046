"""A command that prints so many lines; with a second argument it outlives those who read them."""

import os
import sys

from bitnet_jax.runtime import cli, output, preemption


def main(argv):
  if argv[2:]:
    output.ignore_broken_pipes()
    preemption.install_handlers()
  for _ in range(int(argv[1])):
    print('x' * 100)
  print('said', file=sys.stderr)
  if argv[2:]:
    os.kill(os.getpid(), 15)
    assert preemption.requested()
    return 75
  return 0


cli.run(main, ['command', *sys.argv[1:]], takes_arguments=True)
