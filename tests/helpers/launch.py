"""The launch scripts, on a checkout of their own with a package that needs no index.

The checkout's path has a space, and the scripts are always started elsewhere.
"""

import os
import pathlib
import shutil
import subprocess
import sys

from tests.helpers.paths import ROOT, program

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
# Stands for every module that the scripts call: says how it was called, from where.
_ECHO = "import os, sys; print('{name}', sys.argv[1:], 'in', os.path.basename(os.getcwd()))\n"
PYTHONS = ('python3', *(f'python3.{minor}' for minor in range(11, 15)))


def make_checkout(parent: str) -> pathlib.Path:
  checkout = pathlib.Path(parent, 'a b', 'checkout')
  shutil.copytree(ROOT / 'launch', checkout / 'launch')
  package = checkout / 'bitnet_jax'
  (package / 'analysis').mkdir(parents=True)
  files = {
    'setup.cfg': _SETUP,
    'pyproject.toml': _PYPROJECT,
  }
  for name in ('prepare', 'main', 'analysis.curves', 'analysis.result'):
    files[f'bitnet_jax/{name.replace(".", "/")}.py'] = _ECHO.format(name=name)
  for name, text in files.items():
    (checkout / name).write_text(text)
  shutil.copy(program('build_backend'), checkout / 'backend.py')
  return checkout


def environment(**variables: str) -> dict[str, str]:
  """The variables of this process, without what could reach an index or choose a Python."""
  kept = {
    name: value
    for name, value in {**os.environ}.items()
    if not name.startswith('PIP_') and name not in ('PYTHON', 'PYTHONPATH', 'VENV', 'VIRTUAL_ENV')
  }
  return (
    kept | {'PIP_CONFIG_FILE': os.devnull, 'PIP_RETRIES': '0', 'PYTHON': sys.executable} | variables
  )


def start(checkout: pathlib.Path, script: str, *arguments: str, **variables: str):
  return subprocess.Popen(
    [checkout / 'launch' / script, *arguments],
    cwd='/',
    env=environment(**variables),
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
  )


def finish(process: subprocess.Popen) -> subprocess.CompletedProcess:
  out, err = process.communicate(timeout=120)
  return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def run(*arguments, **variables: str) -> subprocess.CompletedProcess:
  return finish(start(*arguments, **variables))


def builds(checkout: pathlib.Path) -> int:
  return len((checkout / 'builds').read_text())
