"""Command lines and configuration files out of hypothesis, and what each may end with."""

import ast
import json
import math
import os
import pathlib
import re
import subprocess
import sys

from hypothesis import strategies as st

from bitnet_jax.config import fields
from tests.helpers.paths import ROOT

REACHED = 'the training begins'  # What the command prints where it would load its data.
FILES = sorted(str(path) for path in (ROOT / 'configs').glob('*.py'))
WITH_DATA_DIR = [path for path in FILES if 'data.dir =' in pathlib.Path(path).read_text()]
NAMES = [field.name for field in fields.FIELDS]
SECTIONS = sorted({name.split('.')[0] for name in NAMES if '.' in name})
# Characters that a command line can hold; a NUL ends an argument.
TEXT = st.text(st.characters(codec='utf-8', exclude_characters='\0'), max_size=20)
ODD_TEXTS = """nan inf -inf -1 0 1e400 1e-400 0x10 1_000 None null True yes () (1, (1,2) [1] [[[[ ٣
  %s%n 💣 __import__("os") ../../etc/passwd a=b --seed=1 1,2,3 (None,) ('',)"""
ODD_VALUES = st.sampled_from(['', ' ', '\n', '9' * 400, "{'a': 1}", *ODD_TEXTS.split()])
LITERALS = st.recursive(
  st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.binary(max_size=5),
  lambda inner: (
    st.lists(inner, max_size=3) | st.tuples(inner) | st.dictionaries(TEXT, inner, max_size=3)
  ),
  max_leaves=5,
)


class Server:
  """Runs a command's lines in `fuzz_server`; `run` gives exit code, stdout and stderr."""

  def __init__(self, folder, command='main'):
    variables = {
      'PYTHONPATH': str(ROOT),
      'TMPDIR': str(folder),
      'HTTPS_PROXY': 'http://127.0.0.1:9',  # Refuses at once: no network is asked.
      'JAX_COMPILATION_CACHE_DIR': f'{folder}/compiled',
      'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0',
    }
    self.process = subprocess.Popen(
      [sys.executable, '-m', 'tests.helpers.fuzz_server', command],
      cwd=ROOT,
      env={**os.environ, **variables},
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      text=True,
    )

  def run(self, arguments):
    self.process.stdin.write(json.dumps(arguments) + '\n')
    self.process.stdin.flush()
    return json.loads(self.process.stdout.readline())

  def close(self):
    self.process.stdin.close()
    self.process.stdout.close()
    self.process.wait()


def in_range(field):
  """Values that the table of fields allows."""
  kind = type(field.default)
  if field.choices:
    return st.sampled_from(field.choices)
  if kind is bool:
    return st.booleans()
  if kind is str:
    return st.just(field.default)
  low = field.low if math.isfinite(field.low) else -1e9
  high = field.high if math.isfinite(field.high) else 1e9
  number = kind if kind is not tuple else type(field.default[0])
  element = (
    st.integers(int(low), int(high))
    if number is int
    else st.floats(low, high, allow_nan=False, allow_infinity=False)
  )
  return st.lists(element, min_size=1, max_size=4).map(tuple) if kind is tuple else element


@st.composite
def overrides(draw, *, valid=False):
  """(argument, whether it must be refused) of one field; `valid` leaves its value in range."""
  field = draw(st.sampled_from(fields.FIELDS))
  odd = ['odd', 'text', 'typo', 'section', 'unknown', 'form']
  how = draw(st.sampled_from(['in range'] * (1 if valid else 6) + odd * (not valid)))
  if how == 'in range':
    return f'--config.{field.name}={draw(in_range(field))}', False
  if how == 'typo':
    at = draw(st.integers(0, len(field.name) - 1))
    name = field.name[:at] + field.name[at + 1 :]
    return f'--config.{name}=1', name not in NAMES
  if how == 'section':
    value = draw(ODD_VALUES | LITERALS.map(repr))
    return f'--config.{draw(st.sampled_from(SECTIONS))}={value}'.replace('\0', ''), True
  if how == 'unknown':
    return f'--config.{draw(TEXT)}={draw(ODD_VALUES)}', False
  value = draw(ODD_VALUES if how == 'odd' else TEXT)
  if how == 'form':  # Signs and spaces in other places.
    shapes = [
      '-config.{}={}',
      '--config.{} {}',
      '--noconfig.{}{}',
      '--config.{}',
      '--{}={}',
      '{}{}',
    ]
    return draw(st.sampled_from(shapes)).format(field.name, value), False
  return f'--config.{field.name}={value}', _is_wrong(field, value)


def _is_wrong(field, value):
  """Whether a text is surely no value of a number's field."""
  if type(field.default) not in (int, float):
    return False
  try:
    return not field.low <= ast.literal_eval(value) <= field.high
  except Exception:
    return False  # Perhaps absl reads it otherwise: it may do as it likes, in one line.


ODD_ARGUMENTS = """-- - --= -=1 --config --workdir --allow_config_change --undefok=x --nodebug
  --verbosity=x --verbosity=2 --flagfile=/nonexistent --flagfile --workdir= --config= --config=/
  --config=. --config=http://h.invalid/c.py --config=/dev/null --config=a.py:b --config=:
  --config=no.py --allow_config_change=seed --allow_config_change=sede --allow_config_change= --v=1
  --stderrthreshold=x --log_dir=/nonexistent --alsologtostderr"""
OTHER_ARGUMENTS = st.one_of(
  TEXT, TEXT.map(lambda text: f'--{text}'), st.sampled_from(ODD_ARGUMENTS.split())
)

BODIES = st.sampled_from(
  [
    '',
    'x = ',
    'def get_config():\n  return None\n',
    'def get_config():\n  return 7\n',
    'def get_config():\n  return {}\n',
    'def get_config(a, b):\n  return {}\n',
    'def get_config():\n  return get_config()\n',
    'def get_config():\n  raise SystemExit("gone")\n',
    'def get_config():\n  raise SystemExit(0)\n',
    'def get_config():\n  raise Exception("two\\nlines")\n',
    'def get_config():\n  raise OSError(2, "x", "y")\n',
    'def get_config():\n  raise KeyError("k")\n',
    'def get_config():\n  raise MemoryError\n',
    'def get_config():\n  raise AssertionError\n',
    'def get_config():\n  raise UnicodeDecodeError("utf-8", b"x", 0, 1, "bad")\n',
    'def get_config():\n  print("hello")\n  return {"seed": 1}\n',
    'get_config = 3\n',
    'import no_such_module\n',
    'from bitnet_jax.config import default_config\nget_config = default_config\n',
    'import ml_collections\nget_config = ml_collections.ConfigDict\n',
    'class get_config(dict): pass\n',
    '\ufeff# \u202e\ndef get_config():\n\treturn {}\n',
  ]
)


@st.composite
def config_texts(draw):
  """(text of a configuration file, whether it must be refused)."""
  if draw(st.booleans()):
    text = draw(BODIES | st.text(max_size=50))
    return text, 'default_config' not in text
  lines = ['from bitnet_jax.config import default_config', 'def get_config():']
  lines += ['  nan, inf = float("nan"), float("inf")']
  lines += ['  config = default_config().unlock()', '  with config.ignore_type():']
  for _ in range(draw(st.integers(1, 3))):
    name = draw(st.sampled_from(NAMES + SECTIONS + ['new', 'model.new']))
    if draw(st.integers(0, 4)):
      lines.append(f'    config.{name} = {draw(LITERALS)!r}')
    else:
      lines.append(f'    del config.{name}')
  return '\n'.join([*lines, '  return config', '']), False


@st.composite
def cases(draw):
  """(arguments, text of `generated.py` or None, exit codes that are right)."""
  codes, text = {0, 2}, None
  arguments = [f'--config={draw(st.sampled_from(FILES))}']
  kind = draw(st.sampled_from(['valid', 'overrides', 'overrides', 'file', 'line']))
  if kind == 'file':
    text, refused = draw(config_texts())
    arguments = ['--config=generated.py']
    codes = {2} if refused else codes
  if kind == 'line' and draw(st.booleans()):
    arguments = []
  odd = ['w/v/ü', 'file', 'file/w', 'x' * 300, '/proc/x']
  workdir = draw(st.sampled_from(['w'] * (9 if kind == 'valid' else 3) + odd))
  arguments.append(f'--workdir={workdir}')
  usable = workdir[0] == 'w'
  if not usable:
    codes = codes | {6} if kind == 'line' else {2, 6} if codes != {2} else codes
  given = draw(st.lists(overrides(valid=kind == 'valid'), max_size=3))
  arguments += [argument for argument, _ in given]
  for argument, refused in given:
    name = argument.partition('=')[0]
    again = sum(other.startswith(name) for other in arguments) > 1  # The last one counts.
    if refused and kind == 'overrides' and not again:
      codes = {2}
  if kind == 'line':
    arguments += draw(st.lists(OTHER_ARGUMENTS, max_size=3))
    arguments = draw(st.permutations(arguments))
    codes = codes | {6}
  has_dir = any(f'--config={path}' in arguments for path in WITH_DATA_DIR)
  named = has_dir or any('data.dir' in part for part in [*arguments, text or ''])
  if codes != {2} and named and (usable or kind == 'line'):
    codes = codes | {3}  # Nothing is there, or no data set.
  if kind in ('valid', 'overrides') and not given:  # Nothing else can be wrong.
    codes = {6} if not usable else {3} if has_dir else {0}
  return arguments, text, codes


def without_logs(arguments, stderr):
  """Stderr, without the lines of absl's log where an argument asks for more of them."""
  if any(re.match('--?v', argument) for argument in arguments):
    return re.sub(r'(?m)^[IWEF]\d{4} .*\n', '', stderr)
  return stderr


def fault(code, stdout, stderr, codes):
  """What is wrong with the end of a command, '' if nothing."""
  lines = stderr.splitlines()
  if code not in codes:
    return f'exit code {code}, not one of {sorted(codes)}'
  if 'Traceback' in stderr or 'internal=' in stderr:
    return 'a fault of our own'
  if code == 0:
    return 'words on stderr' if lines else ''
  if len(lines) != 1 or not lines[0].startswith('bitnet_jax: error: '):
    return f'{len(lines)} lines on stderr'
  body = lines[0].removeprefix('bitnet_jax: error: ')
  if '=' not in body or ': ' not in body or '; ' not in body:
    return 'not FIELD=VALUE: problem; remedy'
  return ''
