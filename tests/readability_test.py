"""Functions, files and names stay short; programs and what tests share are files of their own."""

import ast
import textwrap

from absl.testing import absltest

from tests.helpers.paths import ROOT

PACKAGE, TESTS = ROOT / 'bitnet_jax', ROOT / 'tests'
FILE_LINES = 300
FUNCTION_LINES = 40  # From `def` to the end, without the docstring.
LONGER_FUNCTIONS = {('training/loop.py', 'train_steps'): 80}
NAME_LENGTH = 50  # Names of tests are shorter.
PROGRAM_LINES = 2


def trees(folder):
  for path in sorted(folder.rglob('*.py')):
    yield path.relative_to(folder).as_posix(), ast.parse(path.read_text())


def functions(tree):
  for node in ast.walk(tree):
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
      yield node


def length(function):
  """Lines of a function without its docstring."""
  lines = function.end_lineno - function.lineno + 1
  if ast.get_docstring(function) is not None:
    docstring = function.body[0]
    lines -= docstring.end_lineno - docstring.lineno + 1
  return lines


def long_functions(folder):
  for path, tree in trees(folder):
    for function in functions(tree):
      limit = LONGER_FUNCTIONS.get((path, function.name), FUNCTION_LINES)
      if length(function) > limit:
        yield f'{path}:{function.lineno} {function.name} has {length(function)} lines'


def long_files(folder):
  for path in sorted(folder.rglob('*.py')):
    lines = len(path.read_text().splitlines())
    if lines > FILE_LINES:
      yield f'{path.relative_to(folder)} has {lines} lines'


def long_names(tree):
  for function in functions(tree):
    if function.name.startswith('test') and len(function.name) >= NAME_LENGTH:
      yield function.name


def imported_tests(tree):
  """Test modules that a module imports."""
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      names = [f'{node.module}.{alias.name}' for alias in node.names]
    else:
      continue
    for name in names:
      if any(part.endswith('_test') for part in name.split('.')):
        yield name


def is_program(text):
  """Whether a text is a Python program of several lines."""
  if 'import' not in text or len(text.strip().splitlines()) <= PROGRAM_LINES:
    return False
  try:
    tree = ast.parse(textwrap.dedent(text))
  except (SyntaxError, ValueError):
    return False
  return any(isinstance(node, ast.Import | ast.ImportFrom) for node in ast.walk(tree))


def texts(tree):
  """String constants; the holes of an f-string hold a name."""
  for node in ast.walk(tree):
    if isinstance(node, ast.JoinedStr):
      parts = node.values
      yield ''.join(part.value if isinstance(part, ast.Constant) else 'x' for part in parts)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
      yield node.value


class PackageTest(absltest.TestCase):
  def test_functions_are_short(self):
    self.assertEqual(list(long_functions(PACKAGE)), [])

  def test_files_are_short(self):
    self.assertEqual(list(long_files(PACKAGE)), [])

  def test_no_file_is_called_utils(self):
    self.assertEqual(list(PACKAGE.rglob('utils.py')), [])


class TestsTest(absltest.TestCase):
  def find(self, search):
    return [f'{path}: {found}' for path, tree in trees(TESTS) for found in search(tree)]

  def test_files_are_short(self):
    self.assertEqual(list(long_files(TESTS)), [])

  def test_names_are_short(self):
    self.assertEqual(self.find(long_names), [])

  def test_no_test_imports_another(self):
    self.assertEqual(self.find(imported_tests), [])

  def test_programs_are_files(self):
    programs = self.find(lambda tree: filter(is_program, texts(tree)))
    self.assertEqual(programs, [])


class SearchTest(absltest.TestCase):
  """The searches find what they are for."""

  def test_length_leaves_the_docstring_out(self):
    tree = ast.parse('@a\ndef f():\n  """One.\n\n  Two.\n  """\n  return 1\n')
    self.assertEqual([length(function) for function in functions(tree)], [2])

  def test_imported_tests(self):
    for line in ('import a.b_test', 'from a.b_test import c', 'from a import b_test'):
      self.assertLen(list(imported_tests(ast.parse(line))), 1, line)
    self.assertEmpty(list(imported_tests(ast.parse('from a import b_tests, latest'))))

  def test_programs(self):
    program = ['import os', 'x = 1', 'print(x)']
    self.assertTrue(is_program('\n'.join(program)))
    self.assertTrue(is_program('\n  ' + '\n  '.join(program)))
    self.assertFalse(is_program('\n'.join(program[:2])))
    self.assertFalse(is_program('important:\nnot a\nprogram'))
    with_holes = ast.parse(f'f{chr(10).join(program)!r}'.replace('os', '{a}'))
    self.assertTrue(any(map(is_program, texts(with_holes))))

  def test_long_names(self):
    for count, found in ((NAME_LENGTH - 5, 1), (NAME_LENGTH - 6, 0)):
      tree = ast.parse(f'def test_{"x" * count}(): pass')
      self.assertLen(list(long_names(tree)), found)


if __name__ == '__main__':
  absltest.main()
