"""Checkpoints changed at random on disk: each change is found, and none of them runs anything."""

import contextlib
import io
import itertools
import os
import pathlib
import pickle
import random
import re
import shutil

import jax
import numpy as np
from absl.testing import absltest

from bitnet_jax.checkpoints import manager
from tests.helpers.checkpoint_case import tree

MUTATIONS = 200
STEPS = (1, 2, 3)


class Payload:
  """Makes a directory when it is unpickled."""

  def __init__(self, path):
    self.path = path

  def __reduce__(self):
    return os.mkdir, (str(self.path),)


def content_of(workdir):
  """All files of all steps and their manifests; links are not followed."""
  return {
    path.relative_to(workdir): os.readlink(path) if path.is_symlink() else path.read_bytes()
    for folder in ('checkpoints', 'manifests')
    for path in (workdir / folder).rglob('*')
    if path.is_symlink() or path.is_file()
  }


def flip(path, numbers, _):
  content = bytearray(path.read_bytes())
  content[numbers.randrange(len(content))] ^= 1 << numbers.randrange(8)
  path.write_bytes(content)


def truncate(path, numbers, _):
  os.truncate(path, numbers.randrange(path.stat().st_size))


def delete(path, *_):
  path.unlink()


def add(path, numbers, paths):
  shutil.copy(numbers.choice(paths), path.with_name('added'))


def link(path, *_):
  """Replaces a file by a link to the same bytes."""
  workdir = next(parent for parent in path.parents if parent.name == 'checkpoints').parent
  path.rename(workdir / 'moved')
  path.symlink_to(workdir / 'moved')


def swap(path, numbers, paths):
  content = path.read_bytes()
  other = numbers.choice([other for other in paths if other.read_bytes() != content])
  path.write_bytes(other.read_bytes())
  other.write_bytes(content)


class MutationsTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)
    self.whole, self.ran = self.folder / 'whole', self.folder / 'ran'
    checkpoints = manager.Checkpoints(str(self.whole), keep_latest=len(STEPS))
    for step in STEPS:
      checkpoints.save(step, tree(step), {'step': step}, 1 / step)
    checkpoints.close()
    self.before = content_of(self.whole)

  def plant(self, path, numbers, _):
    """A pickle in place of a file, or beside it."""
    path = path if numbers.random() < 0.5 else path.with_name('state.pkl')
    path.write_bytes(pickle.dumps(Payload(self.ran)))

  def mutate(self, workdir, mutation, numbers):
    """Changes the copy; gives the steps that are damaged by it."""
    paths = [workdir / name for name in sorted(self.before) if self.before[name]]
    inside = [path for path in paths if path.is_relative_to(workdir / 'checkpoints')]
    alters = mutation in (flip, truncate, delete, swap)  # What can be done to a manifest too.
    mutation(numbers.choice(paths if alters else inside), numbers, paths)
    after = content_of(workdir)
    names = [name for name in self.before | after if self.before.get(name) != after.get(name)]
    return {int(name.parts[1].removesuffix('.json')) for name in names}

  def look(self, workdir):
    """The steps set aside, as it says, the step it offers, and whether the bits are right."""
    with contextlib.redirect_stderr(io.StringIO()) as stderr:
      checkpoints = manager.Checkpoints(str(workdir), keep_latest=len(STEPS))
    told = re.findall(r'warning: step (\d+): .* moved to damaged/', stderr.getvalue())
    step = checkpoints.latest_step()
    state, want = checkpoints.restore(step, tree(0)), tree(step)
    right = all(map(np.array_equal, jax.tree.leaves(state), jax.tree.leaves(want)))
    checkpoints.close()
    return set(map(int, told)), step, right

  def test_none_is_silent(self):
    """Each damaged step is named and set aside, and the newest of the others gives its bits."""
    numbers, silent = random.Random(0), []
    mutations = itertools.cycle((flip, truncate, delete, add, link, swap, self.plant))
    for number in range(MUTATIONS):
      workdir = self.folder / str(number)
      shutil.copytree(self.whole, workdir)
      mutation = next(mutations)
      damaged = self.mutate(workdir, mutation, numbers)
      told, step, right = self.look(workdir)
      if not right or not damaged or told != damaged or step != max(set(STEPS) - damaged):
        silent.append((number, mutation, damaged, told, step))
      shutil.rmtree(workdir)
      self.assertFalse(self.ran.exists(), mutation)
    self.assertEqual(silent, [])

  def test_payload_would_show(self):
    pickle.loads(pickle.dumps(Payload(self.ran)))  # noqa: S301
    self.assertTrue(self.ran.exists())


if __name__ == '__main__':
  absltest.main()
