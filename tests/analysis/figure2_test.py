"""Figure 2 shows the norms of the runs; its script trains what it says."""

import json
import pathlib
import shutil
import subprocess
import tempfile

from absl.testing import absltest, parameterized
from matplotlib.colors import to_hex

from bitnet_jax import errors
from bitnet_jax.analysis import figure2
from bitnet_jax.analysis.audit import networks, paper
from tests.helpers.finished_run import make_run
from tests.helpers.paths import ROOT

# In place of the real one: no environment is made, and Python says how it was called.
_ENVIRONMENT = (
  (ROOT / 'launch/environment.sh').read_text()
  + """
prepare_environment() { python=echo; }
"""
)


def _lines(fig):
  return {
    line.get_gid(): list(zip(*map(list, line.get_data()), strict=True))
    for panel in fig.axes
    for line in panel.get_lines()
  }


class FigureTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = self.enterContext(tempfile.TemporaryDirectory())

  def test_lines_hold_the_norms_of_the_epochs(self):
    make_run(self.folder, 'a', **{'data.name': 'cifar100'})
    make_run(self.folder, 'b', **{'data.name': 'cifar100', 'model.name': 'plainnet'})
    self.assertEqual(
      _lines(figure2.draw(figure2.read([self.folder]))),
      {
        'cifar100/b(4,6,2)-38': [(1.0, 0.25), (2.0, 0.5)],
        'cifar100/plainnet-4,6,2': [(1.0, 0.25), (2.0, 0.5)],
      },
    )

  def test_seeds_make_one_line_with_a_band(self):
    make_run(self.folder, 'a')
    other = make_run(self.folder, 'b', seed=1)
    rows = [{'kind': 'epoch', 'epoch': e, 'stem_gradient_norm': n} for e, n in ((1, 0.75), (3, 1))]
    pathlib.Path(other, 'metrics.jsonl').write_text(''.join(json.dumps(r) + '\n' for r in rows))
    (curves,) = figure2.read([self.folder])['cifar10'].values()
    epochs, mean, spread = figure2.mean_and_spread(curves)
    self.assertEqual((epochs.tolist(), mean.tolist()), ([1.0], [0.5]))
    self.assertAlmostEqual(spread[0], 0.5 / 2**0.5)
    fig = figure2.draw(figure2.read([self.folder]))
    self.assertLen(fig.axes[0].collections, 1)
    self.assertLen(_lines(fig), 1)

  def test_data_sets_have_panels_of_their_own(self):
    make_run(self.folder, 'a')
    make_run(self.folder, 'b', **{'data.name': 'cifar100'})
    fig = figure2.draw(figure2.read([self.folder]))
    titles = [panel.get_title(loc='left') for panel in fig.axes]
    self.assertEqual([title.split(', ')[1] for title in titles], ['cifar10', 'cifar100'])

  def test_nine_look_different_in_the_papers_order(self):
    for number, (network, *_) in enumerate(reversed(paper.FIGURE2_ROWS)):
      sizes = (network.width, network.tree_depth, network.num_blocks)
      make_run(self.folder, f'run{number}', sizes=sizes, **{'model.name': network.name})
    (panel,) = figure2.draw(figure2.read([self.folder])).axes
    names = [text.get_text() for text in panel.get_legend().get_texts()]
    self.assertEqual(names, [row[1] for row in paper.FIGURE2_ROWS])
    looks = {
      (to_hex(line.get_color()), line.get_linestyle(), line.get_marker())
      for line in panel.get_lines()
    }
    self.assertLen(looks, 9)
    # The color and the dashes alone tell them apart, where markers are far between.
    self.assertLen({look[:2] for look in looks}, 9)

  def _cut_short(self, name):
    workdir = make_run(self.folder, name)
    row = {'kind': 'train', 'epoch': 0.5, 'loss': 1.0}
    pathlib.Path(workdir, 'metrics.jsonl').write_text(json.dumps(row) + '\n')

  def test_a_run_without_a_whole_epoch_is_left_out(self):
    self._cut_short('a')
    with self.assertRaisesRegex(errors.DataError, 'workdir=.*: no run there has finished an epoch'):
      figure2.read([self.folder])
    make_run(self.folder, 'b')
    self.assertLen(_lines(figure2.draw(figure2.read([self.folder]))), 1)

  def test_only_seeds_are_averaged(self):
    for name, folder, rate in (('a', '/x/cats', 0.1), ('b', '/x/dogs', 0.1), ('c', '/x/dogs', 0.2)):
      fields = {'data.name': 'folder', 'data.dir': folder, 'optim.learning_rate': rate}
      make_run(self.folder, name, **fields)
    found = figure2.read([self.folder])
    titles = sorted(found)
    self.assertLen(titles, 3)
    self.assertEqual(titles[0], 'folder cats')
    self.assertStartsWith(titles[1], 'folder dogs')
    self.assertIn('optim.learning_rate=0.2', titles[2])
    self.assertEqual(
      [len(curves) for panel in found.values() for curves in panel.values()], [1] * 3
    )

  def test_names_are_those_of_the_legend_in_print(self):
    self.assertEqual(figure2.label(networks.bitnet(4, 2, 6)), 'b(4,2,6)-38')
    self.assertEqual(figure2.label(networks.bitnet(2, 3, 1)), 'bitnet-2,3,1')


class ScriptTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.checkout = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()), 'check out')
    (self.checkout / 'launch').mkdir(parents=True)
    shutil.copy(ROOT / 'launch/figure2.sh', self.checkout / 'launch')
    (self.checkout / 'launch/environment.sh').write_text(_ENVIRONMENT)

  def _run(self, *arguments):
    command = [self.checkout / 'launch/figure2.sh', *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=self.checkout.parent)

  def test_trains_the_nine_networks_with_their_configs(self):
    done = self._run('--output=out', '--data_dir=/data', '--epochs=7')
    self.assertEqual(done.returncode, 0, done.stderr)
    out = f'{self.checkout.parent}/out'
    trained = [line for line in done.stdout.splitlines() if line.startswith('-m bitnet_jax.main')]
    expected = {
      f'-m bitnet_jax.main --config=configs/cifar100_{n.name}.py:{n.width},{n.tree_depth},'
      f'{n.num_blocks} --workdir={out}/{n.name}_{n.width}_{n.tree_depth}_{n.num_blocks} '
      '--config.num_epochs=7 --config.data.dir=/data'
      for n, *_ in paper.FIGURE2_ROWS
    }
    self.assertEqual(set(trained), expected)
    drawn = [line for line in done.stdout.splitlines() if 'analysis.figure2' in line]
    self.assertLen(drawn, 18)
    self.assertEqual(drawn[-1].count('--workdir='), 9)
    for network, *_ in paper.FIGURE2_ROWS:
      self.assertTrue((ROOT / f'configs/cifar100_{network.name}.py').exists())

  def test_some_networks_and_overrides(self):
    done = self._run(
      '--output=/out',
      '--dataset=cifar10',
      '--networks=bitnet:4,1,2',
      '--config.seed=3',
      '--config.data.mean=(1.0, 2.0, 3.0)',
    )
    self.assertIn('--config.seed=3 --config.data.mean=(1.0, 2.0, 3.0)\n', done.stdout)
    self.assertIn('configs/cifar10_bitnet.py:4,1,2 --workdir=/out/bitnet_4_1_2', done.stdout)
    self.assertIn('--config.data.dir= --config.seed', done.stdout)
    self.assertEqual(done.stdout.count('bitnet_jax.main'), 1)

  @parameterized.parameters(
    ((), 'output=: required'),
    (('--output=x', '--dataset=svhn'), 'dataset=svhn: not cifar10 or cifar100'),
    (('--output=x', '--networks=bitnet'), 'networks=bitnet: not a network'),
    (('--output=x', 'y'), 'argument=y: not known'),
  )
  def test_faults_are_told_in_one_line(self, arguments, line):
    done = self._run(*arguments)
    self.assertEqual((done.returncode, done.stdout), (2, ''))
    self.assertRegex(done.stderr, rf'\Abitnet_jax: error: {line}[^\n]*\n\Z')


if __name__ == '__main__':
  absltest.main()
