"""Command lines of evaluate, predict and prepare out of hypothesis, and what each must end with.

Each part has values that are right, and values that are wrong in one way, whose exit code is known:
a line with one fault must end with that one's, a line with several with one of theirs.
"""

from typing import NamedTuple

from hypothesis import strategies as st

from tests.helpers.fuzz import ODD_VALUES, TEXT

COMMANDS = ('evaluate', 'predict', 'prepare')
REFUSED = 'refused'  # With 2, by the command line alone, before anything else is looked at.
URLS = ['gs://bucket/x', 's3://b', 'file:///tmp']
TOO_LARGE = 10**30
LONG = 'x' * 300  # Longer than a file's name may be.


class Part(NamedTuple):
  """Of a command line, as (arguments, code): right ones, and a strategy of wrong ones."""

  right: list
  wrong: st.SearchStrategy


def part(right, wrong):
  """From lists of arguments, the wrong ones by exit code."""
  pairs = [(arguments, code) for code, group in wrong.items() for arguments in group]
  return Part([(arguments, 0) for arguments in right], st.sampled_from(pairs))


def flag(name, right, wrong):
  """From values of a flag, the wrong ones by exit code."""

  def of(values):
    return [[f'--{name}={value}'] for value in values]

  return part(of(right), {code: of(values) for code, values in wrong.items()})


def integer(name, right, wrong):
  """A whole number's flag: also texts that are none."""
  numbers = flag(name, right, wrong)
  texts = (ODD_VALUES | TEXT).filter(lambda text: not is_integer(text))
  return Part(
    numbers.right,
    numbers.wrong | numbers.wrong | texts.map(lambda text: ([f'--{name}={text}'], REFUSED)),
  )


def is_integer(text):
  """Whether absl takes it for one."""
  for base in (10, 0):
    try:
      int(text, base)
      return True
    except ValueError:
      continue
  return False


def workdir(places):
  none = [places['none'], places['data'], '', ' ', LONG, '/proc/x']
  wrong = flag('workdir', [places['run']], {4: none, 6: [places['file']], REFUSED: URLS[:1]})
  return Part(wrong.right, wrong.wrong | st.just(([], REFUSED)))


def evaluate_parts(places):
  odd_splits = ['no', 'test[', 'test[:0]', ' ', 'a/b']
  return [
    workdir(places),
    flag('split', ['', 'test', 'test[:50%]', 'test[10:]'], {3: odd_splits}),
    flag('crops', [1], {2: [10], REFUSED: ['', 2, 'x', '1 ', -1]}),
    integer('step', [0, places['step']], {4: [10**6, TOO_LARGE], REFUSED: [-1]}),
    flag('data_dir', ['', places['data']], {3: [places['none'], places['file']], REFUSED: URLS}),
    integer('batch_size', [0, 60], {2: [TOO_LARGE], REFUSED: [-1]}),
    integer('resize', [0], {2: [TOO_LARGE], REFUSED: [-1]}),
    integer('workers', [-1, 0], {2: [TOO_LARGE], REFUSED: [-2]}),
  ]


def predict_parts(places):
  image = places['image']
  odd = [places['text'], places['none'], places['data'], '', LONG]
  return [
    workdir(places),
    part([[image], [image, image]], {3: [[image, path] for path in odd], REFUSED: [[]]}),
    integer('step', [0, places['step']], {4: [10**6, TOO_LARGE], REFUSED: [-1]}),
    flag('csv', ['', places['csv']], {REFUSED: [f'{places["none"]}/a.csv', *URLS]}),
  ]


def prepare_parts(places):
  file, none = places['file'], places['none']
  unknown = ['no', '', ' ', none, places['data'], 'cifar10', 'cifar100', 'imagenet2012']
  no_boolean = {REFUSED: ['', 'maybe', '2']}
  return [
    flag(
      'data_dir', [places['data']], {6: [file, f'{file}/x', LONG, '/proc/x'], REFUSED: URLS[:1]}
    ),
    flag('dataset', ['digits', places['folder']], {3: unknown, REFUSED: URLS}),
    flag('archive_dir', ['', none], {REFUSED: URLS}),
    flag('unofficial', ['true', 'false'], no_boolean),
    flag('verify', ['true', 'false'], no_boolean),
  ]


PARTS = {'evaluate': evaluate_parts, 'predict': predict_parts, 'prepare': prepare_parts}
NEEDED = 2  # The first parts; the others are drawn.
ODD = [
  '--nope=1',
  '--workdri=x',
  '--config=a.py',
  '--debug=maybe',
  '--step',
  '--no',
  '--é=1',
]


@st.composite
def cases(draw, command, places):
  """(arguments, exit codes that are right); `places` are paths by name, and a step."""
  parts = PARTS[command](places)
  picked = draw(st.lists(st.sampled_from(range(NEEDED, len(parts))), unique=True, max_size=3))
  numbers = [*range(NEEDED), *picked]
  faults = draw(st.sampled_from([0, 0, 1, 1, 1, 1, 2, 3]))
  faulty = draw(st.permutations(numbers))[:faults]
  chosen = [
    draw(parts[number].wrong if number in faulty else st.sampled_from(parts[number].right))
    for number in numbers
  ]
  if not draw(st.integers(0, 9)):
    chosen.append(([draw(st.sampled_from(ODD))], REFUSED))
  arguments = [argument for group, _ in draw(st.permutations(chosen)) for argument in group]
  codes = {code for _, code in chosen}
  if REFUSED in codes:
    return arguments, {2}
  return arguments, codes - {0} or {0}
