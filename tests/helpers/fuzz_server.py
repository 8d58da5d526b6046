"""A process that runs one command on many command lines, each in a fork of its own.

It has imported all that the command needs, so that a case takes milliseconds, and what it runs is
the command itself, from `cli.run` to the exit code. Of the training command, the training is
replaced, by the checks that it begins with, and no data set is asked for in the default place; the
others do all that they do. Reads a JSON line, `[argument, ...]`, answers with one: `[exit code,
stdout, stderr]`.
"""

import importlib
import json
import os
import sys
import tempfile
import types

from bitnet_jax.config import validation
from bitnet_jax.data.datasets import sources
from bitnet_jax.models import build
from bitnet_jax.runtime import cli
from bitnet_jax.training import setup
from bitnet_jax.training.plan import make_plan
from tests.helpers.fuzz import REACHED

# What a command would import in the middle of its work.
LOADS = {
  'main': (),
  'evaluate': ('training.evaluation', 'data.pipeline', 'checkpoints.pretrained'),
  'predict': ('checkpoints.pretrained', 'data.images.augment', 'inference.predictor'),
  'prepare': ('data.datasets.folder_builder',),
}
NUM_DEVICES = 2
NUM_EXAMPLES = 50_000


def train(config, workdir, *, watch, allowed_changes, check_workdir):
  del workdir, watch, allowed_changes, check_workdir
  print(REACHED)
  validation.validate_devices(config, NUM_DEVICES)
  plan = make_plan(config, NUM_EXAMPLES, True)
  build.make_model(config, 10, 'batch')
  setup.make_optimizer(config, plan)
  return {'error': 0.5, 'correct': 5, 'count': 10, 'train_seconds': 1, 'checkpoint': 'none'}


def check_there(name, data_dir, check=sources.check_there):
  if data_dir:  # Else what this machine has prepared would decide.
    check(name, data_dir)


def run_in_fork(module, argv, stdout, stderr):
  child = os.fork()
  if not child:
    os.dup2(stdout.fileno(), 1)
    os.dup2(stderr.fileno(), 2)
    sys.argv = argv
    code = 99  # No way to end that Python knows of.
    try:
      cli.run(module.main, argv, takes_arguments=module.__name__.endswith('.predict'))
    except SystemExit as error:
      code = error.code
      if isinstance(code, str):  # As the interpreter does.
        print(code, file=sys.stderr)
        code = 1
    finally:
      sys.stdout.flush()
      sys.stderr.flush()
      os._exit(code or 0)
  _, status = os.waitpid(child, 0)
  return os.waitstatus_to_exitcode(status)


def load(command):
  """The command's module, with all that it needs, its flags defined."""
  module = importlib.import_module(f'bitnet_jax.{command}')
  for name in LOADS[command]:
    importlib.import_module(f'bitnet_jax.{name}')
  if hasattr(module, 'define_flags'):
    module.define_flags()
  if command == 'main':
    sources.check_there = check_there
    replaced = types.ModuleType('bitnet_jax.training.train')
    replaced.train = train
    sys.modules['bitnet_jax.training.train'] = replaced
    importlib.import_module('bitnet_jax.training').train = replaced
  return module


def serve(command):
  module = load(command)
  for line in sys.stdin:
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
      code = run_in_fork(module, [f'{command}.py', *json.loads(line)], stdout, stderr)
      texts = []
      for file in (stdout, stderr):
        file.seek(0)
        texts.append(file.read().decode(errors='replace'))
    print(json.dumps([code, *texts]), flush=True)


if __name__ == '__main__':
  serve(sys.argv[1])
