"""A command that raises what its flags ask for."""

import os

from absl import app, flags
from ml_collections import config_flags

from bitnet_jax import errors
from bitnet_jax.runtime import cli

config_flags.DEFINE_config_file('config')
_NUMBER = flags.DEFINE_integer('number', 1, 'a number')
_KIND = flags.DEFINE_enum('kind', 'a', ['a', 'b'], 'a kind')
_RAISE = flags.DEFINE_string('raise', '', 'what to raise')
_CODE = flags.DEFINE_integer('code', 0, 'exit code')


def main(argv):
  kind = _RAISE.value
  if kind in ('DataError', 'PreemptedError', 'StorageError'):
    raise getattr(errors, kind)('field', 'value', 'two\nlines', 'do this')
  if kind == 'bug':
    return {}['absent']
  if kind == 'interrupt':
    raise KeyboardInterrupt
  if kind == 'usage':
    raise app.UsageError('not so')
  if kind == 'full':
    raise OSError(28, 'No space left on device', '/big')
  if kind == 'pipe':
    raise BrokenPipeError(32, 'Broken pipe')
  print('ran', flags.FLAGS.config.seed if flags.FLAGS.config else '', argv[1:])
  return _CODE.value


if __name__ == '__main__':
  cli.run(main, takes_arguments=os.environ.get('TAKES_ARGUMENTS') == '1')
