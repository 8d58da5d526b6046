"""Disks that fill up or vanish under a run, and two runs at one place."""

import contextlib
import os
import pathlib
import shutil
import subprocess
import time

from absl.testing import absltest

from tests.helpers import faults
from tests.helpers.faults import FOUND

LONG = {'num_epochs': 30}  # Longer than any test lets it run.


def mounts():
  """Whether this user may mount a file system."""
  place = pathlib.Path('/tmp') / f'mount-test-{os.getpid()}'
  place.mkdir()
  done = subprocess.run(['mount', '-t', 'tmpfs', 'none', place], capture_output=True)
  if not done.returncode:
    subprocess.run(['umount', place], check=True)
  place.rmdir()
  return not done.returncode


needs_mount = absltest.unittest.skipUnless(mounts(), 'this user may not mount a file system')


class StorageTest(faults.FaultCase):
  def mount(self, size):
    place = self.folder / f'disk-{size}-{self.id()}'
    place.mkdir()
    subprocess.run(['mount', '-t', 'tmpfs', '-o', f'size={size}', 'none', place], check=True)
    self.addCleanup(subprocess.run, ['umount', '-l', place])
    return place

  @needs_mount
  def test_disk_too_small_at_the_start(self):
    place = self.mount('256k')
    run = self.start(place / 'run')
    line = r'workdir=.*: 3 checkpoints need [0-9.]+ MB, there are [0-9.]+ MB; free space'
    took = self.ends(run, 6, line, since=run.started)
    self.assertNotIn('training images', self.text(run))
    FOUND.append(('disk too small at the start', f'exit 6 after {took:.1f} s'))

  @needs_mount
  def test_disk_full_in_a_save(self):
    place = self.mount('16m')
    workdir = place / 'run'
    run = self.start(workdir, **{'log.tensorboard': True})
    self.wait_for(run, workdir / 'manifests' / '15.json')
    with open(place / 'filler', 'wb', buffering=0) as file, contextlib.suppress(OSError):
      while True:
        file.write(b'x' * 1024)
    line = 'workdir=.*: a checkpoint could not be written: needs .* MB, has .* MB; free space'
    took = self.ends(run, 6, line)
    warnings = [row for row in self.text(run).splitlines() if 'metrics are not written' in row]
    self.assertLessEqual(len(warnings), 1)
    (place / 'filler').unlink()
    rest = self.completes(workdir, **{'log.tensorboard': True})
    self.assertRegex(rest, 'resumed from step [1-9]')
    reference = self.reference(**{'log.tensorboard': True})
    self.assertEqual(faults.state_bits(workdir), faults.state_bits(reference))
    FOUND.append(('disk full in a save', f'exit 6 after {took:.1f} s, then on to the same bits'))

  @needs_mount
  def test_read_only(self):
    place = self.mount('1m')
    subprocess.run(['mount', '-o', 'remount,ro', place], check=True)
    run = self.start(place / 'run')
    took = self.ends(run, 6, 'workdir=.*: Read-only file system; ', since=run.started)
    FOUND.append(('work directory read-only', f'exit 6 after {took:.1f} s'))

  def test_work_directory_is_a_file(self):
    path = self.folder / 'file'
    path.touch()
    run = self.start(path)
    took = self.ends(run, 6, 'workdir=.*/file: File exists; ', since=run.started)
    FOUND.append(('work directory is a file', f'exit 6 after {took:.1f} s'))

  def test_removed_while_running(self):
    workdir = self.folder / 'removed'
    run = self.start(workdir, **LONG)
    self.wait_for(run, workdir / 'manifests' / '10.json')
    removed = time.monotonic()
    while workdir.exists():
      shutil.rmtree(workdir, ignore_errors=True)  # A save may be making directories meanwhile.
    line = 'workdir=.*: (it was removed while the run went on|a checkpoint could not be written)'
    took = self.ends(run, 6, line, since=removed)
    FOUND.append(('work directory removed while running', f'exit 6 after {took:.1f} s'))

  def test_made_anew_while_running(self):
    """The new directory often has the number of the old one."""
    workdir = self.folder / 'anew'
    run = self.start(workdir, **LONG)
    self.wait_for(run, workdir / 'manifests' / '10.json')
    removed = time.monotonic()
    workdir.rename(self.folder / 'removed-at-once')
    shutil.rmtree(self.folder / 'removed-at-once', ignore_errors=True)
    (workdir / 'checkpoints').mkdir(parents=True)
    line = 'workdir=.*: (it was removed while the run went on|a checkpoint could not be written)'
    took = self.ends(run, 6, line, since=removed)
    self.assertEqual([path.name for path in workdir.rglob('*')], ['checkpoints'])
    FOUND.append(('work directory made anew while running', f'exit 6 after {took:.1f} s'))

  def test_metrics_cannot_be_written(self):
    workdir = self.folder / 'metrics'
    run = self.start(workdir)
    self.wait_for(run, workdir / 'manifests' / '10.json')
    (workdir / 'metrics.jsonl').unlink()
    (workdir / 'metrics.jsonl').mkdir()
    self.ends(run, 0)
    warnings = [row for row in self.text(run).splitlines() if 'warning' in row]
    self.assertLen(warnings, 1)
    self.assertIn('metrics are not written', warnings[0])
    reference = self.reference()
    self.assertEqual(faults.state_bits(workdir), faults.state_bits(reference))
    FOUND.append(('metrics cannot be written', 'one warning, exit 0, same bits'))

  def test_two_jobs_at_once(self):
    workdir, fields = self.folder / 'two', {'num_epochs': 10}
    first = self.start(workdir, **fields)
    self.wait_for(first, workdir / 'manifests' / '5.json')
    second = self.start(workdir, **fields)
    line = f'workdir=.*: in use by pid {first.pid} on host .* since 20.*; wait for it'
    took = self.ends(second, 6, line, since=second.started)
    (workdir / '.lock').unlink()
    third = self.start(workdir, **fields)
    self.ends(third, 6, 'workdir=.*: in use by another process; wait for it')
    self.ends(first, 0)
    self.assertSameRun(workdir, self.reference(**fields))
    FOUND.append(('two jobs at once', f'second: exit 6 after {took:.1f} s; first: same bits'))


if __name__ == '__main__':
  absltest.main()
