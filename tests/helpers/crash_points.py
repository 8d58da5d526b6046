"""Saves checkpoints in forks of one process, each killed at another point, and looks what is left.

  python -m tests.helpers.crash_points WORKDIR FIRST LAST [preloaded]

Where `tests/helpers/crash.c` is preloaded, it does the killing; else the functions of Python that
rename do. Prints a JSON line for each point: whether the process was killed there, the steps whose
save had returned, the step that was offered then and whether its bits are right, and the steps that
stand when the saves were made up for.
"""

import contextlib
import json
import os
import pathlib
import signal
import sys
import traceback

import numpy as np

from bitnet_jax.checkpoints.manager import Checkpoints

ERRORS = {1: 0.5, 2: 0.1, 3: 0.4, 4: 0.3}


def tree(step):
  rng = np.random.default_rng(step)
  return {'step': np.array(step, np.int32), 'params': {'w': rng.normal(size=(50, 40))}}


def save_all(workdir, report):
  checkpoints = Checkpoints(str(workdir), keep_latest=1, keep_best=1)
  found = checkpoints.latest_step() or 0
  for step in range(found + 1, len(ERRORS) + 1):
    checkpoints.save(step, tree(step), {'step': step}, ERRORS[step])
    checkpoints.wait()
    report(step)
  checkpoints.close()


def kill_at(point, under):
  """This process dies before the rename with that number."""
  count = 0

  def counted(real):
    def rename(old, new, **options):
      nonlocal count
      count += under in str(new)
      if under in str(new) and count == point:
        os.kill(os.getpid(), signal.SIGKILL)
      return real(old, new, **options)

    return rename

  os.rename, os.replace = counted(os.rename), counted(os.replace)


def in_fork(function, *arguments):
  """Calls `function(write, ...)` in a child; what it wrote, and how it ended."""
  reader, writer = os.pipe()
  child = os.fork()
  if not child:
    code = 1
    try:
      function(lambda value: os.write(writer, f'{json.dumps(value)}\n'.encode()), *arguments)
      code = 0
    except BaseException:
      traceback.print_exc()
    finally:
      os._exit(code)
  os.close(writer)
  with os.fdopen(reader) as file:
    values = [json.loads(line) for line in file]
  _, status = os.waitpid(child, 0)
  return values, os.waitstatus_to_exitcode(status)


def save_and_die(write, workdir, point, preloaded):
  under = str(workdir)
  if preloaded:
    os.environ.update(CRASH_AT=str(point), CRASH_UNDER=under)
  else:
    kill_at(point, under)
  save_all(workdir, write)


def look(write, workdir):
  with contextlib.redirect_stderr(open(os.devnull, 'w')):
    checkpoints = Checkpoints(str(workdir), keep_latest=1, keep_best=1)
  step = checkpoints.latest_step()
  right = True
  if step:
    state = checkpoints.restore(step, tree(0))
    right = checkpoints.read_record(step) == {'step': step}
    right = right and state['step'] == step
    right = right and np.array_equal(state['params']['w'], tree(step)['params']['w'])
  checkpoints.close()
  write([step or 0, bool(right)])


def make_up(write, workdir):
  with contextlib.redirect_stderr(open(os.devnull, 'w')):
    save_all(workdir, lambda step: None)
  write(sorted(int(path.name) for path in (workdir / 'checkpoints').iterdir()))


def main(workdir, first, last, preloaded=''):
  for point in range(int(first), int(last) + 1):
    folder = pathlib.Path(workdir, str(point))
    saved, code = in_fork(save_and_die, folder, point, bool(preloaded))
    looked, look_code = in_fork(look, folder)
    made_up, _ = in_fork(make_up, folder)
    print(
      json.dumps(
        {
          'point': point,
          'killed': code == -signal.SIGKILL,
          'code': code,
          'saved': max(saved, default=0),
          'offered': looked[0][0] if looked else -1,
          'right': bool(looked) and looked[0][1] and look_code == 0,
          'after': made_up[0] if made_up else [],
        }
      ),
      flush=True,
    )
    if code == 0:
      return


if __name__ == '__main__':
  main(*sys.argv[1:])
