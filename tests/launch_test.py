"""The launch scripts, on a checkout of their own with a package that needs no index.

The checkout's path has a space, and the scripts are always started elsewhere.
"""

import ast
import configparser
import importlib.metadata
import os
import pathlib
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time

from absl.testing import absltest, parameterized

from tests.helpers.paths import ROOT

_SETUP = """
[metadata]
name = fake

[options.extras_require]
test = nothing
"""
_PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
# Builds the wheel of an editable install; waits for ever where it is told to.
_BACKEND = r"""
import os, pathlib, time, zipfile

_FILES = {
  'fake.py': 'number = 7',
  'fake-1.dist-info/METADATA': 'Metadata-Version: 2.1\nName: fake\nVersion: 1\n',
  'fake-1.dist-info/WHEEL': 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n',
}

def build_editable(directory, config_settings=None, metadata_directory=None):
  pathlib.Path('builds').open('a').write('x')
  if os.environ.get('HANG'):
    pathlib.Path('hangs').touch()
    time.sleep(600)
  name = 'fake-1-py3-none-any.whl'
  with zipfile.ZipFile(pathlib.Path(directory, name), 'w') as wheel:
    for path, text in _FILES.items():
      wheel.writestr(path, text)
    wheel.writestr('fake-1.dist-info/RECORD', ',,\n'.join([*_FILES, 'fake-1.dist-info/RECORD', '']))
  return name
"""
# Stands for every module that the scripts call: says how it was called, from where.
_ECHO = "import os, sys; print('{name}', sys.argv[1:], 'in', os.path.basename(os.getcwd()))\n"
_PYTHONS = ('python3', *(f'python3.{minor}' for minor in range(11, 15)))

# Imported where a command is asked to compare with it, and never installed by default.
# Of the benchmarks' other side, which another Python may run.
_OPTIONAL = {'torch', 'torch_networks', 'onnxruntime'}


def _make_checkout(parent: str) -> pathlib.Path:
  checkout = pathlib.Path(parent, 'a b', 'checkout')
  shutil.copytree(ROOT / 'launch', checkout / 'launch')
  package = checkout / 'bitnet_jax'
  (package / 'analysis').mkdir(parents=True)
  files = {'setup.cfg': _SETUP, 'pyproject.toml': _PYPROJECT, 'backend.py': _BACKEND}
  for name in ('prepare', 'main', 'analysis.curves', 'analysis.result'):
    files[f'bitnet_jax/{name.replace(".", "/")}.py'] = _ECHO.format(name=name)
  for name, text in files.items():
    (checkout / name).write_text(text)
  return checkout


def _environment(**variables: str) -> dict[str, str]:
  """The variables of this process, without what could reach an index or choose a Python."""
  kept = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith('PIP_') and name not in ('PYTHON', 'VENV', 'VIRTUAL_ENV')
  }
  return (
    kept | {'PIP_CONFIG_FILE': os.devnull, 'PIP_RETRIES': '0', 'PYTHON': sys.executable} | variables
  )


def _start(checkout: pathlib.Path, script: str, *arguments: str, **variables: str):
  return subprocess.Popen(
    [checkout / 'launch' / script, *arguments],
    cwd='/',
    env=_environment(**variables),
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
  )


def _finish(process: subprocess.Popen) -> subprocess.CompletedProcess:
  out, err = process.communicate(timeout=120)
  return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def _run(*arguments, **variables: str) -> subprocess.CompletedProcess:
  return _finish(_start(*arguments, **variables))


def _builds(checkout: pathlib.Path) -> int:
  return len((checkout / 'builds').read_text())


class FreshCheckoutTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.parent = self.enterContext(tempfile.TemporaryDirectory())
    self.checkout = _make_checkout(self.parent)

  def _fake(self, name: str, script: str) -> str:
    """Puts a command in front of the path; returns the path."""
    directory = pathlib.Path(self.parent, 'fakes')
    directory.mkdir(exist_ok=True)
    (directory / name).write_text('#!/bin/sh\n' + script + '\n')
    (directory / name).chmod(stat.S_IRWXU)
    return f'{directory}:{os.environ["PATH"]}'

  def _assert_one_line(self, done: subprocess.CompletedProcess, pattern: str, code: int):
    self.assertRegex(done.stderr, rf'\Abitnet_jax: error: {pattern}\n\Z')
    self.assertEqual(done.stderr.count('\n'), 1)
    self.assertEqual(done.returncode, code)

  @parameterized.parameters('test.sh', 'quickstart.sh')
  def test_no_python_that_is_new_enough(self, script):
    old = 'import sys; sys.version_info = (3, 10, 14); exec(sys.argv[1])'
    for name in _PYTHONS:
      path = self._fake(name, f'exec "{sys.executable}" "$1" "$2" "{old}" "$3"')
    done = _run(self.checkout, script, PATH=path, PYTHON='')
    self._assert_one_line(done, 'PYTHON=python3: not found, or older than 3.11; .*', 2)

  def test_stand_ins_that_do_not_start_are_passed_over(self):
    for name in _PYTHONS:
      path = self._fake(name, 'echo no such version >&2; exit 127')
    path = self._fake('python3.13', f'exec "{sys.executable}" "$@"')
    path = self._fake('df', 'echo "/dev/x 1 1 1024 1% /"')
    done = _run(self.checkout, 'test.sh', PATH=path, PYTHON='')
    self._assert_one_line(done, 'VENV=.* 1 MB free .*', 6)

  def test_chosen_python_is_the_only_one_tried(self):
    done = _run(self.checkout, 'test.sh', PYTHON='/no such/python')
    self._assert_one_line(done, 'PYTHON=/no such/python: not found.*', 2)

  def test_venv_module_is_missing(self):
    for name in _PYTHONS:
      script = f'case "$*" in *ensurepip*) exit 1 ;; esac; exec "{sys.executable}" "$@"'
      path = self._fake(name, script)
    done = _run(self.checkout, 'test.sh', PATH=path, PYTHON='')
    self._assert_one_line(done, 'PYTHON=python3.*: its venv module is missing; .*', 2)

  def test_disk_is_full(self):
    for free_mb, starts in ((2499, False), (2500, True)):
      path = self._fake('df', f'printf "Filesystem\\n/dev/x 9 9 {free_mb * 1024} 9%% /\\n"')
      # Where the space suffices, the venv that cannot be made ends the script.
      self._fake('python3', f'case "$*" in *-m*) exit 1 ;; esac; exec "{sys.executable}" "$@"')
      done = _run(self.checkout, 'test.sh', PATH=path, PYTHON='')
      if starts:
        self._assert_one_line(done, 'VENV=.*: python3 -m venv failed; see .*/install.log', 1)
      else:
        self._assert_one_line(done, 'VENV=.*/a b/checkout/.venv: its disk has 2499 MB free .*', 6)

  def test_index_cannot_be_reached(self):
    setup = (ROOT / 'pyproject.toml').read_text()
    (self.checkout / 'pyproject.toml').write_text(setup)
    done = _run(self.checkout, 'test.sh', PIP_INDEX_URL='http://127.0.0.1:9', PIP_RETRIES='1')
    log = self.checkout / '.venv/install.log'
    pattern = rf'pip install -e \.\[test\]: the package index cannot be reached; details in {log}'
    self._assert_one_line(done, pattern, 1)
    self.assertIn('Connection refused', log.read_text())

  def test_place_of_the_environment_is_taken(self):
    venv = pathlib.Path(self.parent, 'mine')
    venv.mkdir()
    (venv / 'thesis.txt').write_text('years of work')
    done = _run(self.checkout, 'test.sh', VENV=str(venv))
    self._assert_one_line(done, 'VENV=.*/mine: neither empty nor a virtual environment; .*', 6)
    self.assertEqual((venv / 'thesis.txt').read_text(), 'years of work')

  def test_install_that_was_killed_is_repaired(self):
    killed = _start(self.checkout, 'quickstart.sh', HANG='1')
    while not (self.checkout / 'hangs').exists():
      self.assertIsNone(killed.poll())
      time.sleep(0.05)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    venv = self.checkout / '.venv'
    (venv / 'half').write_text('left behind')
    done = _run(self.checkout, 'quickstart.sh')
    self.assertEqual(done.returncode, 0, done.stderr)
    self.assertIn('was cut short', done.stdout)
    self.assertFalse((venv / 'half').exists())
    subprocess.run([venv / 'bin/python', '-c', 'import fake; assert fake.number == 7'], check=True)


class InstalledCheckoutTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.parent = cls.enterClassContext(tempfile.TemporaryDirectory())
    cls.checkout = _make_checkout(cls.parent)
    # Both at once: the second has to wait for the first, and finds its work done.
    processes = [_start(cls.checkout, 'quickstart.sh') for _ in range(2)]
    cls.first = [_finish(process) for process in processes]
    cls.first_builds = _builds(cls.checkout)

  def test_two_at_once_install_once(self):
    self.assertEqual([done.returncode for done in self.first], [0, 0], self.first)
    self.assertEqual(self.first_builds, 1)

  def test_second_run_installs_nothing_and_is_quick(self):
    _run(self.checkout, 'quickstart.sh')  # Whatever another test's requirements left.
    builds, start = _builds(self.checkout), time.monotonic()
    done = _run(self.checkout, 'quickstart.sh', PYTHON='')
    self.assertLess(time.monotonic() - start, 5)
    self.assertEqual(done.returncode, 0, done.stderr)
    self.assertEqual(_builds(self.checkout), builds)

  def test_changed_requirements_are_installed(self):
    builds = _builds(self.checkout)
    with (self.checkout / 'setup.cfg').open('a') as file:
      file.write('# changed\n')
    done = _run(self.checkout, 'quickstart.sh')
    self.assertEqual(done.returncode, 0, done.stderr)
    self.assertEqual(_builds(self.checkout), builds + 1)
    _run(self.checkout, 'quickstart.sh')
    self.assertEqual(_builds(self.checkout), builds + 1)

  @parameterized.parameters(
    ('# none\n', 'Installed .* by hash'),
    (
      'nothing==1 --hash=sha256:00',
      'could not be installed as it is .*: taking what the index has',
    ),
  )
  def test_requirements_by_hash(self, text, line):
    lock = self.checkout / f'requirements-{sys.version_info[0]}.{sys.version_info[1]}.txt'
    lock.write_text(text)
    builds = _builds(self.checkout)
    done = _run(self.checkout, 'test.sh', LOCK=str(lock))
    self.assertRegex(done.stdout, line)
    self.assertEqual(_builds(self.checkout), builds + 1)

  def test_requirements_of_another_python_are_left_alone(self):
    lock = self.checkout / 'requirements-3.1.txt'
    lock.write_text('nothing==2 --hash=sha256:00')
    builds = _builds(self.checkout)
    done = _run(self.checkout, 'test.sh', LOCK=str(lock))
    self.assertNotIn('requirements', done.stdout)
    self.assertEqual(_builds(self.checkout), builds + 1)

  def test_update_without_index_keeps_what_works(self):
    setup, backend = self.checkout / 'setup.cfg', self.checkout / 'backend.py'
    texts = setup.read_text(), backend.read_text()
    setup.write_text(texts[0] + '# changed\n')
    backend.write_text('raise SystemExit("ERROR: broken")')
    done = _run(self.checkout, 'quickstart.sh')
    self.assertEqual(done.returncode, 1)
    self.assertRegex(done.stderr, r'\Abitnet_jax: error: pip install -e \..*; details in .*\n\Z')
    setup.write_text(texts[0])
    done = _run(self.checkout, 'quickstart.sh')
    self.assertEqual(done.returncode, 0, done.stderr)
    self.assertNotIn('cut short', done.stdout)
    self.assertNotIn('Installing', done.stdout)
    backend.write_text(texts[1])

  def test_quickstart_calls_each_command_in_the_checkout(self):
    done = _run(self.checkout, 'quickstart.sh', '--config.seed=1')
    data, workdir = 'runs/tensorflow_datasets', '--workdir=runs/quickstart'
    config = '--config=configs/digits_bitnet.py'
    calls = {
      'prepare': ['--dataset=digits', f'--data_dir={data}'],
      'main': [config, workdir, f'--config.data.dir={data}', '--config.seed=1'],
      'analysis.curves': [workdir, '--output=runs/quickstart/curves.png'],
      'analysis.result': [workdir],
    }
    lines = [f'{name} {arguments} in checkout' for name, arguments in calls.items()]
    self.assertEqual([line for line in done.stdout.splitlines() if ' in checkout' in line], lines)
    self.assertNotIn('finished already', done.stdout)

  def test_quickstart_says_that_the_run_was_finished(self):
    result = self.checkout / 'runs/quickstart/result.json'
    result.parent.mkdir(parents=True, exist_ok=True)
    result.write_text('{}')
    self.addCleanup(result.unlink)
    self.assertIn('finished already', _run(self.checkout, 'quickstart.sh').stdout)

  def test_quickstart_stops_at_the_first_failure(self):
    main = self.checkout / 'bitnet_jax/main.py'
    self.addCleanup(main.write_text, main.read_text())
    main.write_text('raise SystemExit(5)')
    done = _run(self.checkout, 'quickstart.sh')
    self.assertEqual(done.returncode, 5)
    self.assertNotIn('analysis', done.stdout)

  @parameterized.parameters(
    ('= 3 passed in 0.10s =', 0),
    ('1 failed, 2 passed in 61.00s (0:01:01)', 1),
    ('no tests ran in 0.01s', 5),
  )
  def test_last_line_and_code_are_those_of_pytest(self, closing, code):
    fake = self.checkout / 'pytest.py'
    self.addCleanup(fake.unlink)
    fake.write_text(
      f'import sys; print(sys.argv[1:]); print({closing!r}, flush=True)\n'
      f'print("a late warning", file=sys.stderr); sys.exit({code})'
    )
    done = _run(self.checkout, 'test.sh', '-k', 'two words')
    lines = done.stdout.splitlines()
    self.assertIn("['-k', 'two words']", lines)
    self.assertEqual(lines[-2:], ['a late warning', closing])
    self.assertEqual(done.returncode, code)

  @parameterized.parameters('test.sh', 'quickstart.sh')
  def test_help_installs_nothing(self, script):
    done = _run(self.checkout, script, '--help', VENV='/nowhere')
    self.assertIn(f'./launch/{script}', done.stdout)
    self.assertNotIn('#', done.stdout)
    self.assertEqual((done.returncode, done.stderr), (0, ''))


class PackagingTest(absltest.TestCase):
  def test_every_import_is_declared(self):
    setup = configparser.ConfigParser()
    setup.read(ROOT / 'setup.cfg')
    declared = set(re.findall(r'(?m)^([\w-]+)>=', setup['options']['install_requires']))
    declared = {name.lower().replace('_', '-') for name in declared}
    distributions = importlib.metadata.packages_distributions()
    imported = set()
    for path in (ROOT / 'bitnet_jax').rglob('*.py'):
      for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
          imported |= {alias.name.split('.')[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
          imported.add(node.module.split('.')[0])
    imported -= sys.stdlib_module_names | {'bitnet_jax'} | _OPTIONAL
    self.assertContainsSubset({'jax', 'matplotlib'}, imported)
    for name in imported:
      owners = {owner.lower().replace('_', '-') for owner in distributions.get(name, [name])}
      self.assertTrue(owners & declared, f'{name} is not in install_requires')

  def test_installed_versions_satisfy_the_lower_bounds(self):
    setup = configparser.ConfigParser()
    setup.read(ROOT / 'setup.cfg')
    bounds = re.findall(r'(?m)^([\w-]+)>=([\d.]+)', setup['options']['install_requires'])
    self.assertGreater(len(bounds), 10)
    for name, bound in bounds:
      version = importlib.metadata.version(name)
      numbers = [[int(n) for n in re.findall(r'\d+', text)] for text in (version, bound)]
      self.assertGreaterEqual(*numbers, f'{name} {version} is below {bound}')


if __name__ == '__main__':
  absltest.main()
