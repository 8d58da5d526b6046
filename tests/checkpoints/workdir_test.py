"""A work directory is refused where it cannot serve, and used by one process until that ends."""

import contextlib
import errno
import fcntl
import os
import pathlib
import shutil
import signal
import stat
import subprocess
import sys
from unittest import mock

from absl.testing import absltest, parameterized

from bitnet_jax import errors
from bitnet_jax.checkpoints import workdir
from tests.helpers import unprivileged
from tests.helpers.paths import program
from tests.helpers.processes import environment


class ClaimTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.create_tempdir().full_path)

  def test_makes_the_directory_with_its_parents(self):
    with workdir.Claim(str(self.folder / 'a' / 'b')) as claim:
      self.assertTrue(claim.path.is_dir())

  @parameterized.parameters('file', 'file/below')
  def test_file_is_refused(self, name):
    (self.folder / 'file').write_text('')
    with self.assertRaisesRegex(errors.StorageError, f'workdir=.*{name}: ') as caught:
      workdir.Claim(str(self.folder / name))
    self.assertEqual(caught.exception.exit_code, 6)

  @absltest.unittest.skipUnless(unprivileged.possible(), 'no permissions stop this user')
  @parameterized.parameters('', 'new')
  def test_read_only_is_refused(self, name):
    self.folder.chmod(0o500)
    done = unprivileged.run(
      *(sys.executable, program('claims_workdir'), str(self.folder / name)), env=environment()
    )
    line = f'workdir={self.folder / name}: Permission denied; name a directory that can be written'
    self.assertEqual(done.stderr.splitlines()[-1], f'bitnet_jax.errors.StorageError: {line}')
    self.assertEmpty(list(self.folder.iterdir()))

  def claim_elsewhere(self):
    """A process that has claimed the directory."""
    process = subprocess.Popen(
      [sys.executable, program('claims_workdir'), str(self.folder)],
      env=environment(),
      stdout=subprocess.PIPE,
      text=True,
    )
    self.addCleanup(process.kill)
    self.assertEqual(process.stdout.readline(), 'claimed\n')
    return process

  def test_second_is_told_who_claimed_it(self):
    process = self.claim_elsewhere()
    line = f'in use by pid {process.pid} on host .* since 20.*; wait for it, or take another'
    with self.assertRaisesRegex(errors.StorageError, line):
      workdir.Claim(str(self.folder))
    self.assertIsNone(process.poll())

  def test_lock_of_a_dead_owner_is_recovered(self):
    process = self.claim_elsewhere()
    process.send_signal(signal.SIGKILL)
    process.wait()
    with workdir.Claim(str(self.folder)):
      pass

  def test_removed_lock_lets_nobody_in(self):
    process = self.claim_elsewhere()
    (self.folder / '.lock').unlink()
    for _ in range(2):
      with self.assertRaisesRegex(errors.StorageError, 'in use by another process; wait for it'):
        workdir.Claim(str(self.folder))
    self.assertIsNone(process.poll())
    self.assertEqual(list(self.folder.iterdir()), [])

  def test_removed_lock_is_noticed_as_on_nfs(self):
    """As on NFS."""
    real = fcntl.flock

    def of_files_alone(file, operation):
      if stat.S_ISDIR(os.fstat(file).st_mode):
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
      real(file, operation)

    line = f'workdir={self.folder}: its .lock was removed while the run went on.*; leave that file'
    self.enterContext(mock.patch.object(fcntl, 'flock', of_files_alone))
    with workdir.Claim(str(self.folder)) as claim:
      with self.assertRaisesRegex(errors.StorageError, 'in use by pid'):
        workdir.Claim(str(self.folder))
      claim.check()
      (self.folder / '.lock').unlink()
      with self.assertRaisesRegex(errors.StorageError, line):
        claim.check()
      with workdir.Claim(str(self.folder)), self.assertRaisesRegex(errors.StorageError, line):
        claim.check()

  def test_lock_that_is_a_link_is_not_written_through(self):
    other = self.create_tempfile(content='the only copy').full_path
    (self.folder / '.lock').symlink_to(other)
    with self.assertRaisesRegex(errors.StorageError, 'workdir=.*: Too many levels of symbolic'):
      workdir.Claim(str(self.folder))
    self.assertEqual(pathlib.Path(other).read_text(), 'the only copy')

  def test_other_directory_at_the_same_path_is_noticed(self):
    folder = self.folder / 'run'
    with workdir.Claim(str(folder)) as claim:
      claim.check()
      shutil.rmtree(folder)
      for make in (lambda: None, folder.mkdir):
        make()
        with self.assertRaisesRegex(
          errors.StorageError, f'workdir={folder}: it was removed while the run went on; run the c'
        ) as caught:
          claim.check()
        self.assertEqual(caught.exception.exit_code, 6)

  @parameterized.parameters('a[1]', 'a]', 'a\\b', 'a*', 'a?', 'a[1]/../b')
  def test_path_that_is_a_pattern(self, name):
    line = 'workdir=.*: checkpoints in .* could not be restored because of .* in it; take a --work'
    with self.assertRaisesRegex(errors.StorageError, line):
      workdir.Claim(str(self.folder / name))
    with self.assertRaisesRegex(errors.StorageError, line), contextlib.chdir(self.odd()):
      workdir.Claim('run')
    self.assertEqual(list(self.folder.iterdir()), [self.folder / '[odd]'])

  def odd(self):
    (self.folder / '[odd]').mkdir()
    return self.folder / '[odd]'

  @parameterized.parameters('config.json', 'run.json', 'result.json')
  def test_directory_in_the_place_of_a_file(self, name):
    (self.folder / name).mkdir()
    line = f'workdir={self.folder}/{name}: is a directory; move it elsewhere, or take another'
    for _ in range(2):
      with self.assertRaisesRegex(errors.StorageError, line):
        workdir.Claim(str(self.folder))

  @parameterized.parameters(errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)
  def test_file_system_without_locks_is_refused(self, number):
    fault = OSError(number, os.strerror(number))
    line = (
      rf'workdir={self.folder}: its file system gives no lock .{fault.strerror}.; mount it with'
    )
    with (
      mock.patch.object(fcntl, 'flock', side_effect=fault),
      self.assertRaisesRegex(errors.StorageError, line) as caught,
    ):
      workdir.Claim(str(self.folder))
    self.assertEqual(caught.exception.exit_code, 6)

  def test_release_frees_it(self):
    with workdir.Claim(str(self.folder)), self.assertRaises(errors.StorageError):
      workdir.Claim(str(self.folder))
    with workdir.Claim(str(self.folder)):
      pass


class SpaceTest(absltest.TestCase):
  def test_too_little(self):
    folder = self.create_tempdir().full_path
    line = '3 checkpoints need 40,000,000,000 MB, there are .* MB; free space, or lower'
    with self.assertRaisesRegex(errors.StorageError, line):
      workdir.check_space(folder, state_bytes=10**16, checkpoints=3)
    workdir.check_space(folder, state_bytes=10**3, checkpoints=3)
    pathlib.Path(folder, 'damaged').mkdir()
    with self.assertRaisesRegex(errors.StorageError, f'free space .delete {folder}/damaged., or'):
      workdir.check_space(folder, state_bytes=10**16, checkpoints=3)

  def test_what_is_there_already_counts(self):
    folder = pathlib.Path(self.create_tempdir().full_path)
    old = folder / 'checkpoints' / '5' / 'state'
    old.mkdir(parents=True)
    with open(old / 'data', 'wb') as file:
      file.truncate(8 * 10**12)  # Sparse.
    workdir.check_space(str(folder), state_bytes=2 * 10**12, checkpoints=3)
    # Of another run, in a directory below: none of what this one needs.
    (folder / 'checkpoints').rename(folder / 'other')
    (folder / 'runs').mkdir()
    (folder / 'other').rename(folder / 'runs' / 'checkpoints')
    with self.assertRaisesRegex(errors.StorageError, '3 checkpoints need 8,000,000 MB'):
      workdir.check_space(str(folder), state_bytes=2 * 10**12, checkpoints=3)


if __name__ == '__main__':
  absltest.main()
