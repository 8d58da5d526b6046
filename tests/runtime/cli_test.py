"""Tests of the boundary that every command starts behind."""

import errno
import os
import pathlib
import shutil
import tempfile

from absl.testing import absltest, parameterized

from bitnet_jax import errors
from bitnet_jax.onednn import custom_call
from bitnet_jax.runtime import cli
from tests.helpers.paths import program
from tests.helpers.processes import environment, run_program

# Configuration files that are faulty in one way each.
FAULTY_CONFIGS = {
  'raises.py': 'def get_config():\n  return absent_name\n',
  'value_error.py': 'def get_config():\n  x = 1\n  raise ValueError("no good")\n',
  'syntax.py': '\ndef (\n',
  'empty.py': 'x = 1\n',
}


class RunTest(parameterized.TestCase):
  directory: pathlib.Path

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.directory = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
    for name, text in FAULTY_CONFIGS.items():
      (cls.directory / name).write_text(text)
    shutil.copy(program('good_config'), cls.directory / 'good.py')
    shutil.copy(program('refused_config'), cls.directory / 'user_error.py')

  def call(self, *arguments, **variables):
    env = environment(**variables)
    return run_program('cli_command', *arguments, cwd=self.directory, env=env)

  @parameterized.parameters(
    ('--raise=DataError', 3, 'field=value: two lines; do this'),
    ('--raise=StorageError', 6, 'field=value: two lines; do this'),
    ('--raise=PreemptedError', 75, 'field=value: two lines; do this'),
    ('--raise=usage', 2, 'arguments=: not so; see --help'),
    ('--raise=full', 6, 'file=/big: No space left on device; free space there'),
    ('--nunber=1', 2, 'nunber=1: unknown flag; did you mean --number?'),
    ('--number=x', 2, 'number=x: not an integer; give an integer'),
    ('--kind=c', 2, 'kind=c: value should be one of <a|b>; give a value that fits'),
    ('--number', 2, 'number=: no value; write --number=VALUE'),
    ('extra', 2, 'argument=extra: not a flag of this command; see --help for its flags'),
    ('--config.seed=2', 2, 'config.seed=2: unknown flag; give --config=FILE too'),
    (
      '--config=absent.py',
      2,
      'config=absent.py: no such file; give a local config file, --config=configs/NAME.py',
    ),
    (
      '--config=http://host/c.py',
      2,
      'config=http://host/c.py: no such file; give a local config file, --config=configs/NAME.py',
    ),
    (
      '--config=raises.py',
      2,
      "config=raises.py: NameError: name 'absent_name' is not defined (at raises.py:2); "
      'correct the file',
    ),
    (
      '--config=value_error.py',
      2,
      'config=value_error.py: ValueError: no good (at value_error.py:3); correct the file',
    ),
    (
      '--config=syntax.py',
      2,
      'config=syntax.py: SyntaxError: invalid syntax (at syntax.py:2); correct the file',
    ),
    ('--config=user_error.py', 4, 'a=1: b; c'),
  )
  def test_error_is_one_line_with_its_code(self, argument, code, line):
    done = self.call(argument)
    self.assertEqual(done.stderr, f'bitnet_jax: error: {line}\n')
    self.assertEqual(done.returncode, code)
    self.assertEqual(done.stdout, '')

  @parameterized.parameters(
    ('--config.sede=2', 'config.sede=2: unknown key; did you mean config.seed?'),
    ('--config.learning_rate=1', 'unknown key; did you mean config.optim.learning_rate?'),
    ('--config.optim.lerning_rate=1', 'did you mean config.optim.learning_rate?'),
    ('--config.seed=abc', 'config.seed=abc: not an integer; give an integer'),
    ('--config.rate=abc', 'config.rate=abc: not a number; give a number'),
    ('--config.on=maybe', 'config.on=maybe: not true or false; give true or false'),
    ('--config.seed', 'config.seed=: no value; write --config.seed=VALUE'),
  )
  def test_bad_override(self, argument, line):
    done = self.call('--config=good.py', argument)
    self.assertEndsWith(done.stderr, line + '\n')
    self.assertLen(done.stderr.splitlines(), 1)
    self.assertEqual(done.returncode, 2)

  @parameterized.parameters('--config=good.py', '--config=good.py:variant')
  def test_good_override(self, argument):
    done = self.call(argument, '--config.seed=7')
    self.assertEqual((done.stdout, done.stderr, done.returncode), ('ran 7 []\n', '', 0))

  def test_config_without_get_config(self):
    done = self.call('--config=empty.py')
    self.assertIn('get_config', done.stderr)
    self.assertLen(done.stderr.splitlines(), 1)
    self.assertEqual(done.returncode, 2)

  def test_bug_names_the_line_of_code(self):
    done = self.call('--raise=bug')
    lines = pathlib.Path(program('cli_command')).read_text().splitlines()
    line = lines.index("    return {}['absent']") + 1
    self.assertIn("internal=KeyError: 'absent'", done.stderr)
    self.assertIn(f'cli_command.py:{line})', done.stderr)
    self.assertLen(done.stderr.splitlines(), 1)
    self.assertEqual(done.returncode, 1)

  @parameterized.parameters(('--raise=DataError', 3), ('--raise=bug', 1), ('--number=x', 2))
  def test_debug_prints_traceback_and_line(self, argument, code):
    done = self.call(argument, '--debug')
    self.assertIn('Traceback (most recent call last)', done.stderr)
    self.assertStartsWith(done.stderr.splitlines()[-1], 'bitnet_jax: error: ')
    self.assertEqual(done.returncode, code)
    self.assertNotIn('Traceback', self.call(argument, '--nodebug').stderr)

  def test_interrupt(self):
    done = self.call('--raise=interrupt')
    self.assertEqual((done.stderr, done.returncode), ('bitnet_jax: interrupted\n', 130))

  def test_reader_gone(self):
    done = self.call('--raise=pipe')
    self.assertEqual((done.stderr, done.returncode), ('', 141))

  @parameterized.parameters('--help', '-help', '--helpshort', '--helpfull', '--helpxml', '-?')
  def test_help_is_no_failure(self, argument):
    done = self.call(argument)
    self.assertEqual((done.stderr, done.returncode), ('', 0))
    self.assertIn('A command that raises what its flags ask for.', done.stdout)
    self.assertIn('debug', done.stdout)

  def test_exit_code_of_main(self):
    self.assertEqual(self.call('--code=5').returncode, 5)

  def test_arguments_where_they_are_taken(self):
    done = self.call('a', '--number=2', 'b', TAKES_ARGUMENTS='1')
    self.assertEqual((done.stdout, done.returncode), ("ran  ['a', 'b']\n", 0))


class AsUserErrorTest(parameterized.TestCase):
  def test_keeps_user_error(self):
    error = errors.DivergedError('a', 1, 'b', 'c')
    self.assertIs(cli.as_user_error(error), error)

  @parameterized.parameters(
    (errno.ENOENT, 'No such file or directory; restore it, or name another'),
    (errno.EISDIR, 'Is a directory; move it elsewhere, or name another'),
    (errno.ENOTEMPTY, 'Directory not empty; see that nothing else changes what lies there, run it'),
    (errno.EIO, 'Input/output error; make it readable and writable, and run it again'),
    (errno.ENOSPC, 'No space left on device; free space there'),
  )
  def test_fault_of_a_file_names_it_and_what_helps(self, number, line):
    error = cli.as_user_error(OSError(number, os.strerror(number), 'x'))
    self.assertStartsWith(str(error), f'file=x: {line}')
    self.assertEqual((type(error), error.exit_code), (errors.StorageError, 6))

  def test_fault_of_no_file_is_our_own(self):
    error = cli.as_user_error(OSError(errno.EIO, 'Input/output error'))
    self.assertEqual((type(error), error.exit_code), (errors.UserError, 1))

  def test_read_only_disk(self):
    error = cli.as_user_error(OSError(30, 'Read-only file system', '/ro'))
    self.assertEqual(str(error), 'file=/ro: Read-only file system; choose a place that you may use')
    self.assertEqual(error.exit_code, 6)


class InFlightTest(absltest.TestCase):
  def test_ends_after_what_is_under_way(self):
    """A thread that calls Python after its end is lost, and JAX would wait for it for ever."""
    if reason := custom_call.unavailable():
      self.skipTest(reason)
    done = run_program('fails_in_flight')
    self.assertEqual(done.stderr, 'bitnet_jax: error: image=x: broken; mend it\n')
    self.assertEqual(done.stdout.split(), ['failed', 'computed', 'computed'])
    self.assertEqual(done.returncode, 3)


if __name__ == '__main__':
  absltest.main()
