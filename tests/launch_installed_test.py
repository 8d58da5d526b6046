"""The launch scripts on a checkout where they have installed the package already."""

import shutil
import sys
import tempfile
import time

from absl.testing import absltest, parameterized

from tests.helpers import launch
from tests.helpers.paths import program


class InstalledCheckoutTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.parent = cls.enterClassContext(tempfile.TemporaryDirectory())
    cls.checkout = launch.make_checkout(cls.parent)
    # Both at once: the second has to wait for the first, and finds its work done.
    processes = [launch.start(cls.checkout, 'quickstart.sh') for _ in range(2)]
    cls.first = [launch.finish(process) for process in processes]
    cls.first_builds = launch.builds(cls.checkout)

  def test_two_at_once_install_once(self):
    self.assertEqual([done.returncode for done in self.first], [0, 0], self.first)
    self.assertEqual(self.first_builds, 1)

  def test_second_run_installs_nothing_and_is_quick(self):
    launch.run(self.checkout, 'quickstart.sh')  # Whatever another test's requirements left.
    builds, start = launch.builds(self.checkout), time.monotonic()
    done = launch.run(self.checkout, 'quickstart.sh', PYTHON='')
    self.assertLess(time.monotonic() - start, 5)
    self.assertEqual(done.returncode, 0, done.stderr)
    self.assertEqual(launch.builds(self.checkout), builds)

  def test_changed_requirements_are_installed(self):
    builds = launch.builds(self.checkout)
    with (self.checkout / 'setup.cfg').open('a') as file:
      file.write('# changed\n')
    done = launch.run(self.checkout, 'quickstart.sh')
    self.assertEqual(done.returncode, 0, done.stderr)
    self.assertEqual(launch.builds(self.checkout), builds + 1)
    launch.run(self.checkout, 'quickstart.sh')
    self.assertEqual(launch.builds(self.checkout), builds + 1)

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
    builds = launch.builds(self.checkout)
    done = launch.run(self.checkout, 'test.sh', LOCK=str(lock))
    self.assertRegex(done.stdout, line)
    self.assertEqual(launch.builds(self.checkout), builds + 1)

  def test_requirements_of_another_python_are_ignored(self):
    lock = self.checkout / 'requirements-3.1.txt'
    lock.write_text('nothing==2 --hash=sha256:00')
    builds = launch.builds(self.checkout)
    done = launch.run(self.checkout, 'test.sh', LOCK=str(lock))
    self.assertNotIn('requirements', done.stdout)
    self.assertEqual(launch.builds(self.checkout), builds + 1)

  def test_update_without_index_keeps_what_works(self):
    setup, backend = self.checkout / 'setup.cfg', self.checkout / 'backend.py'
    texts = setup.read_text(), backend.read_text()
    setup.write_text(texts[0] + '# changed\n')
    backend.write_text('raise SystemExit("ERROR: broken")')
    done = launch.run(self.checkout, 'quickstart.sh')
    self.assertEqual(done.returncode, 1)
    self.assertRegex(done.stderr, r'\Abitnet_jax: error: pip install -e \..*; details in .*\n\Z')
    setup.write_text(texts[0])
    done = launch.run(self.checkout, 'quickstart.sh')
    self.assertEqual(done.returncode, 0, done.stderr)
    self.assertNotIn('cut short', done.stdout)
    self.assertNotIn('Installing', done.stdout)
    backend.write_text(texts[1])

  def test_quickstart_calls_each_command_in_checkout(self):
    done = launch.run(self.checkout, 'quickstart.sh', '--config.seed=1')
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
    self.assertIn('finished already', launch.run(self.checkout, 'quickstart.sh').stdout)

  def test_quickstart_stops_at_the_first_failure(self):
    main = self.checkout / 'bitnet_jax/main.py'
    self.addCleanup(main.write_text, main.read_text())
    main.write_text('raise SystemExit(5)')
    done = launch.run(self.checkout, 'quickstart.sh')
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
    shutil.copy(program('fake_pytest'), fake)
    variables = {'CLOSING': closing, 'CODE': str(code)}
    done = launch.run(self.checkout, 'test.sh', '-k', 'two words', **variables)
    lines = done.stdout.splitlines()
    self.assertIn("['-k', 'two words']", lines)
    self.assertEqual(lines[-2:], ['a late warning', closing])
    self.assertEqual(done.returncode, code)

  @parameterized.parameters('test.sh', 'quickstart.sh')
  def test_help_installs_nothing(self, script):
    done = launch.run(self.checkout, script, '--help', VENV='/nowhere')
    self.assertIn(f'./launch/{script}', done.stdout)
    self.assertNotIn('#', done.stdout)
    self.assertEqual((done.returncode, done.stderr), (0, ''))


if __name__ == '__main__':
  absltest.main()
