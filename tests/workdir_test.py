"""The work directory: refused where it cannot serve, held by one process, freed by its death."""

import errno
import fcntl
import os
import pathlib
import signal
import subprocess
import sys
from unittest import mock

from absl.testing import absltest, parameterized

from bitnet_jax import errors, workdir
from tests import train_process, unprivileged

HOLDER = """
import sys, time
from bitnet_jax.workdir import Claim
claim = Claim(sys.argv[1])
print('held', flush=True)
time.sleep(60)
"""


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
      sys.executable, '-c', HOLDER, str(self.folder / name), cwd=train_process.ROOT
    )
    line = f'workdir={self.folder / name}: Permission denied; name a directory that can be written'
    self.assertEqual(done.stderr.splitlines()[-1], f'bitnet_jax.errors.StorageError: {line}')
    self.assertEmpty(list(self.folder.iterdir()))

  def hold(self):
    process = subprocess.Popen(
      [sys.executable, '-c', HOLDER, str(self.folder)], stdout=subprocess.PIPE, text=True
    )
    self.addCleanup(process.kill)
    self.assertEqual(process.stdout.readline(), 'held\n')
    return process

  def test_second_is_told_who_holds_it(self):
    process = self.hold()
    line = f'in use by pid {process.pid} on host .* since 20.*; wait for it, or take another'
    with self.assertRaisesRegex(errors.StorageError, line):
      workdir.Claim(str(self.folder))
    self.assertIsNone(process.poll())

  def test_lock_of_a_dead_owner_is_recovered(self):
    process = self.hold()
    process.send_signal(signal.SIGKILL)
    process.wait()
    with workdir.Claim(str(self.folder)):
      pass

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


if __name__ == '__main__':
  absltest.main()
