"""Runs a command: parses its flags, and ends it with one line and an exit code.

A command's module ends with

    if __name__ == '__main__':
      cli.run(main)

and never prints a traceback unless `--debug` is given. Exit codes are those of
`bitnet_jax.errors`; 1 is a fault of our own, 2 also a bad command line, 6 also
a disk that is full or not writable, 130 an interrupt from the keyboard.
"""

from __future__ import annotations

import difflib
import errno
import functools
import os
import re
import shlex
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NoReturn

from absl import app, flags, logging
from ml_collections.config_flags import config_flags

from bitnet_jax import errors
from bitnet_jax.runtime import host, interrupt, output

_BROKEN_PIPE = 141  # 128 + SIGPIPE; what was to be done is not done.
_FULL = (errno.ENOSPC, errno.EDQUOT)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_HELP = re.compile(r'--?(\?|help|helpshort|helpfull|helpxml)')
_DEBUG = re.compile(r'--?debug(=(true|t|1|yes|y))?', re.IGNORECASE)

flags.DEFINE_boolean('debug', False, 'Print the traceback of an error before its line.')


def run(
  main: Callable[[list[str]], int | None],
  argv: Sequence[str] | None = None,
  *,
  takes_arguments: bool = False,
  end: Callable[[int, str], NoReturn] | None = None,
) -> NoReturn:
  """Parses the flags, calls `main` and ends the process.

  Args:
    main: takes the arguments that are no flags, the program's name first, as
      absl's `app.run` passes them. What it returns is the exit code; None is 0.
    argv: the command line, `sys.argv` if None.
    takes_arguments: whether arguments that are no flags are allowed.
    end: ends the process after a fault, given the exit code and the line that was printed; None
      for `sys.exit`.

  Raises:
    SystemExit: always, with the exit code.
  """
  output.open_missing_streams()
  host.keep_freed_memory()  # Before the first library starts a thread.
  argv = list(sys.argv if argv is None else argv)
  flags.FLAGS.register_key_flag_for_module(sys.argv[0], flags.FLAGS['debug'])

  if not _debugs(argv):
    _silence_threads()
  try:
    interrupt.raise_again()
    called = functools.partial(_call, main, debugs=_debugs(argv), takes_arguments=takes_arguments)
    app.run(called, argv, flags_parser=_parse)
  except KeyboardInterrupt:
    _end(interrupt.LINE, interrupt.CODE, argv, end)
  except BrokenPipeError:
    # The reader of our output (head, less) has gone; nobody is left to tell.
    output.finish()
    if end:
      end(_BROKEN_PIPE, 'stdout: nobody reads it any more; keep its reader')
    sys.exit(_BROKEN_PIPE)
  except Exception as error:
    user_error = as_user_error(error)
    _end(f'bitnet_jax: error: {user_error}', user_error.exit_code, argv, end)
  sys.exit(0)


def _call(
  main: Callable[[list[str]], int | None],
  arguments: list[str],
  *,
  debugs: bool,
  takes_arguments: bool,
) -> int | None:
  """Calls `main` once the flags are parsed; a fault of the arguments becomes a ConfigError."""
  if not flags.FLAGS['verbosity'].present:
    # Orbax logs every file that it writes, and a full disk in two hundred lines.
    logging.set_verbosity(logging.WARNING if debugs else logging.FATAL)
  if arguments[1:] and not takes_arguments:
    raise errors.ConfigError(
      'argument', arguments[1], 'not a flag of this command', 'see --help for its flags'
    )
  try:
    code = main(arguments)
    output.flush()
    return code
  except app.UsageError as error:
    raise errors.ConfigError(
      'arguments', shlex.join(arguments[1:]), str(error), 'see --help'
    ) from error


def _silence_threads() -> None:
  """Silences faults in threads of libraries; those that matter are raised where awaited."""
  sys.excepthook = lambda *_: None
  sys.unraisablehook = lambda _: None
  threading.excepthook = lambda _: None


def as_user_error(error: BaseException) -> errors.UserError:
  """Returns the one-line form of any exception that ends a command.

  Args:
    error: what was raised, with its traceback.

  Returns:
    `error` itself if it is a `UserError`; a `StorageError` for a full or
    unwritable disk, and for whatever else the system says of a file; else a
    plain `UserError` that names the line of code.
  """
  if isinstance(error, errors.UserError):
    return error
  if isinstance(error, OSError) and (error.filename or error.errno in _FULL + _FORBIDDEN):
    problem, remedy = error.strerror or str(error), errors.remedy_of(error.errno)
    return errors.StorageError('file', error.filename or 'unknown', problem, remedy)
  if str(error).startswith('RESOURCE_EXHAUSTED'):  # JAX's, which is not imported here.
    problem = f'the memory of a device ran out ({str(error).splitlines()[0][20:]})'
    remedy = 'lower the batch size, or give --config.data.pipeline=stream'
    return errors.ConfigError('device', 'memory', problem, remedy)
  frames = traceback.extract_tb(error.__traceback__)
  ours = [f for f in frames if 'bitnet_jax' in f.filename and f.filename != __file__]
  at = ''.join(f' (at {f.filename}:{f.lineno})' for f in (ours or list(frames))[-1:])
  return errors.UserError(
    'internal', type(error).__name__, f'{error}{at}', 'run again with --debug and report it'
  )


def _debugs(argv: Sequence[str]) -> bool:
  return any(_DEBUG.fullmatch(argument) for argument in argv)


def _end(
  line: str,
  exit_code: int,
  argv: Sequence[str],
  end: Callable[[int, str], NoReturn] | None,
) -> NoReturn:
  line = ' '.join(line.split())
  output.finish(traceback.format_exc() + line if _debugs(argv) else line)
  if end:
    end(exit_code, line)
  sys.exit(exit_code)


def _parse(argv: list[str]) -> list[str]:
  """Parses the flags; any failure becomes a `ConfigError`."""
  for name, path in _config_files(argv):
    if not os.path.isfile(path):
      raise errors.ConfigError(
        name, path, 'no such file', f'give a local config file, --{name}=configs/NAME.py'
      )
  logging.set_verbosity(logging.ERROR)  # A config file may make its reader warn, beside our line.
  try:
    return flags.FLAGS(argv)
  except SystemExit as error:
    # absl ends --help with 1; asking for help is no failure.
    if any(_HELP.fullmatch(argument) for argument in argv):
      output.flush()
      raise SystemExit(0) from None
    raise _config_error(error, argv) from error
  except errors.UserError:
    raise
  except flags.Error as error:
    raise _flag_error(error) from error
  except Exception as error:
    raise _config_error(error, argv) from error


def _flag_error(error: flags.Error) -> errors.ConfigError:
  """Says what absl says about a flag, in our form."""
  if isinstance(error, flags.UnrecognizedFlagError):
    guess = re.search(r'Did you mean: (\S+)', str(error))
    remedy = f'did you mean --{guess.group(1)}?' if guess else 'see --help for the flags'
    if _is_override(error.flagname):
      remedy = f'give --{error.flagname.split(".")[0]}=FILE too'
    value = error.flagvalue.partition('=')[2]
    return errors.ConfigError(error.flagname, value, 'unknown flag', remedy)
  message = str(error)
  missing = re.fullmatch(r'Missing value for flag --?(\S+)', message)
  if missing:
    name = missing.group(1)
    return errors.ConfigError(name, '', 'no value', f'write --{name}=VALUE')
  parts = re.fullmatch(r'flag --(\S+?)=(.*?): (.*)', message, re.DOTALL)
  if not parts:
    return errors.ConfigError('flags', '', message, 'see --help for the flags')
  name, value, reason = parts.groups()
  if 'Traceback' in reason:  # A config file that raised TypeError or ValueError.
    last_frame = re.findall(r'File "([^"]+)", line (\d+)', reason)[-1]
    reason = f'{reason.strip().splitlines()[-1]} (at {":".join(last_frame)})'
    return errors.ConfigError(name, value, reason, 'correct the file')
  if 'must have a value other than None' in reason:
    return errors.ConfigError(name, '', 'required', f'give --{name}=VALUE')
  kinds = {'int()': 'an integer', 'to float': 'a number', 'boolean': 'true or false'}
  for sign, kind in kinds.items():
    if sign in reason:
      return errors.ConfigError(name, value, f'not {kind}', f'give {kind}')
  return errors.ConfigError(name, value, reason.rstrip('.'), 'give a value that fits')


def _is_override(name: str) -> bool:
  return name.split('.')[0] in flags.FLAGS and '.' in name


def _config_error(error: Exception | SystemExit, argv: Sequence[str]) -> errors.ConfigError:
  """Returns the error for a config file that raises, or for an override of an unknown field."""
  paths = dict(_config_files(argv))
  configs = {os.path.abspath(path): (name, path) for name, path in paths.items()}
  frames = [(f.filename, f.lineno) for f in traceback.extract_tb(error.__traceback__)]
  if isinstance(error, SyntaxError) and error.filename:
    frames.append((error.filename, error.lineno))
  for filename, line in reversed(frames):
    if os.path.abspath(filename) in configs:
      name, path = configs[os.path.abspath(filename)]
      problem = f'{type(error).__name__}: {getattr(error, "msg", error)} (at {path}:{line})'
      return errors.ConfigError(name, path, problem, 'correct the file')
  for argument in argv:
    name, _, value = argument.lstrip('-').partition('=')
    config_name, _, key = name.partition('.')
    if key and config_name in paths:
      keys = _keys(paths[config_name], config_name)
      if keys and key not in keys:
        # The last part is what people remember: learning_rate for optim.learning_rate.
        by_leaf = {k.rpartition('.')[2]: k for k in keys}
        leaf = difflib.get_close_matches(key.rpartition('.')[2], by_leaf, n=1)
        near = [by_leaf[leaf[0]]] if leaf else difflib.get_close_matches(key, keys, n=1)
        remedy = f'did you mean {config_name}.{near[0]}?' if near else 'see the config file'
        return errors.ConfigError(name, value, 'unknown key', remedy)
  name, path = next(iter(paths.items()), ('flags', shlex.join(argv[1:])))
  return errors.ConfigError(name, path, f'{type(error).__name__}: {error}', 'correct it')


def _config_files(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
  """Yields (flag, path) of each config file on the command line."""
  for position, argument in enumerate(argv):
    if argument == '--':
      return
    name, equals, value = argument.lstrip('-').partition('=')
    if not argument.startswith('-') or name not in flags.FLAGS:
      continue
    if isinstance(flags.FLAGS[name].parser, config_flags.ConfigFileFlagParser):
      if not equals and position + 1 < len(argv):
        value = argv[position + 1]
      if value:
        # `FILE:ARGUMENT` passes the argument to get_config.
        path = value.partition(':')[0]
        yield name, path if path.endswith('.py') else value


def _keys(path: str, name: str) -> list[str]:
  """Returns all dotted keys of a config file; none if it does not load."""

  def walk(config: Mapping, prefix: str) -> Iterator[str]:
    for key, value in config.items():
      yield prefix + key
      if isinstance(value, Mapping):
        yield from walk(value, f'{prefix}{key}.')

  try:
    config = config_flags.ConfigFileFlagParser(name).parse(path)
    return list(walk(config.to_dict(), ''))
  except Exception:  # It is no ConfigDict, or the file's own fault, which is told elsewhere.
    return []
