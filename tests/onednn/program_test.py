"""A network as one call: threads, forks, the end of the process, and what must not leak over."""

import concurrent.futures
import contextlib
import os
import signal
import subprocess
import sys
import warnings

import numpy as np
from absl.testing import absltest, parameterized

from bitnet_jax import onednn
from bitnet_jax.onednn import graph, instance, layout, program

SHAPE = (9, 7, 3)


def network(seed, features=32):
  """Three convolutions, of which two are a tree, with a norm that stays between them."""
  rng = np.random.default_rng(seed)

  def conv(x, count, relu=True):
    c = x.shape[2]
    kernel = rng.normal(size=(3, 3, c, count)).astype(np.float32) / c
    bias = rng.normal(size=count).astype(np.float32)
    shape = (*x.shape[:2], count)
    return graph.Conv(shape=shape, inputs=[x], kernel=kernel, bias=bias, strides=1, relu=relu)

  def part(x, start):
    return graph.Part(shape=(*x.shape[:2], features // 2), inputs=[x], start=start)

  image = graph.Image(shape=SHAPE)
  stem = conv(image, 24, relu=False)
  scale, shift = np.linspace(-1, 1, 24), np.linspace(1, 2, 24)
  norm = graph.Affine(shape=stem.shape, inputs=[stem], scale=scale, shift=shift, relu=True)
  first = conv(norm, features)
  halves = [part(first, 0), part(first, features // 2)]
  last = conv(halves[1], features // 2)
  joined = graph.Join(shape=(*SHAPE[:2], features), inputs=[halves[0], last])
  nodes = [image, stem, norm, first, *halves, last, joined]
  kernel, bias = rng.normal(size=(features, 5)), rng.normal(size=5)
  return graph.Network(
    nodes=nodes,
    features=joined,
    kernel=kernel.astype(np.float32),
    bias=bias.astype(np.float32),
  )


def by_numpy(net, image):
  """Logits in float64, written down anew."""
  values = {net.nodes[0]: image.astype(np.float64)}
  for node in net.nodes[1:]:
    inputs = [values[x] for x in node.inputs]
    if isinstance(node, graph.Part):
      y = inputs[0][..., node.start : node.start + node.shape[2]]
    elif isinstance(node, graph.Join):
      y = np.concatenate(inputs, axis=-1)
    elif isinstance(node, graph.Affine):
      y = inputs[0] * node.scale + node.shift
    else:
      padded = np.pad(inputs[0], ((1, 1), (1, 1), (0, 0)))
      windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(0, 1))
      y = np.einsum('hwcij,ijcf->hwf', windows, node.kernel) + node.bias
    values[node] = np.maximum(y, 0) if getattr(node, 'relu', False) else y
  return values[net.features].mean(axis=(0, 1)) @ net.kernel + net.bias


@contextlib.contextmanager
def all_cores():
  """Every operation is shared, however small it is."""
  with contextlib.ExitStack() as stack:
    for name in ('_SPINNING_SHARE', '_PASSIVE_SHARE'):
      stack.enter_context(absltest.mock.patch.object(program, name, 1))
    yield


@absltest.skipIf(onednn.unavailable(), onednn.unavailable())
class ProgramTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.images = np.random.default_rng(0).normal(size=(7, *SHAPE)).astype(np.float32)

  @parameterized.product(features=(32, 16, 40), count=(0, 1, 2, 7, 50))
  def test_by_numpy(self, features, count):
    net = network(1, features)
    images = np.random.default_rng(count).normal(size=(count, *SHAPE)).astype(np.float32)
    got = program.Program(net, 'f32')(images)
    self.assertEqual(got.shape, (count, 5))
    self.assertEqual(got.dtype, np.float32)
    for logits, image in zip(got, images, strict=True):
      want = by_numpy(net, image)
      np.testing.assert_allclose(logits, want, atol=1e-5 * np.abs(want).max())

  def test_large_activations_go_through_one_at_a_time(self):
    run, images = program.Program(network(1), 'f32'), np.resize(self.images, (50, *SHAPE))
    want, at_once = run(images), []

    def note(instances, *addresses):
      at_once.append(len(instances))
      return instance_run(instances, *addresses)

    instance_run = instance.run
    with absltest.mock.patch.object(instance, 'run', side_effect=note):
      run(images)
      self.assertEqual(max(at_once), 4)
      at_once.clear()
      with absltest.mock.patch.object(program, '_CACHE_BYTES', 1):
        np.testing.assert_array_equal(run(images), want)
    self.assertEqual(max(at_once), 1)

  def test_two_networks_at_once(self):
    nets = [network(seed) for seed in (1, 2)]
    runs = [program.Program(net, 'f32') for net in nets]
    for _ in range(2):
      for net, run in zip(nets, runs, strict=True):
        want = np.array([by_numpy(net, image) for image in self.images])
        np.testing.assert_allclose(run(self.images), want, atol=1e-5 * np.abs(want).max())

  def test_threads_share_nothing(self):
    with all_cores():
      run = program.Program(network(1), 'f32')
    want = run(self.images)
    with concurrent.futures.ThreadPoolExecutor(6) as pool:
      for count in [*range(1, 8)] * 6:
        for got in [pool.submit(run, self.images[:count]) for _ in range(6)]:
          np.testing.assert_allclose(got.result(), want[:count], rtol=1e-5)

  def test_nothing_is_left_of_a_broken_image(self):
    run = program.Program(network(1, 40), 'f32')
    want = run(self.images[:1])
    broken = np.full((1, *SHAPE), 3e38, np.float32)
    self.assertGreater(np.abs(run(broken) - want).max(), 1)
    np.testing.assert_array_equal(run(self.images[:1]), want)

  def test_another_size(self):
    run = program.Program(network(1), 'f32')
    with self.assertRaisesRegex(ValueError, r'images of \(7, 9, 3\); the network was made for'):
      run(self.images.transpose(0, 2, 1, 3))

  def test_a_fault_in_a_thread_is_raised(self):
    run = program.Program(network(1), 'f32')
    broken = absltest.mock.patch.object(instance, 'run', side_effect=RuntimeError('odd'))
    with broken, self.assertRaisesRegex(RuntimeError, 'odd'):
      run(self.images[:4])

  def test_a_fork_computes_the_same(self):
    with all_cores():
      run = program.Program(network(1), 'f32')
    want = run(self.images)
    reader, writer = os.pipe()
    run._making.acquire()  # As by a thread that packs kernels; the child does not have it.
    with warnings.catch_warnings(action='ignore'):  # The child does not use JAX.
      child = os.fork()
    if not child:
      signal.alarm(30)
      for count in (1, 7):
        os.write(writer, np.ascontiguousarray(run(self.images[:count])).tobytes())
      os._exit(0)
    run._making.release()
    os.close(writer)
    with os.fdopen(reader, 'rb') as pipe:
      got = np.frombuffer(pipe.read(), np.float32).reshape(8, 5)
    os.waitpid(child, 0)
    np.testing.assert_allclose(got, want[[0, *range(7)]], rtol=1e-5)

  def test_a_process_ends_while_a_thread_computes(self):
    code = (
      'import sys, threading, time\n'
      f'sys.path.insert(0, {os.path.dirname(__file__)!r})\n'
      'import numpy as np, program_test\n'
      'run = program_test.program.Program(program_test.network(1), "f32")\n'
      'def work():\n'
      '  while True: run(np.ones((5, 9, 7, 3)))\n'
      'threading.Thread(target=work, daemon=True).start()\n'
      'time.sleep(0.3)\n'
    )
    subprocess.run([sys.executable, '-c', code], check=True, timeout=60)


@absltest.skipIf(onednn.unavailable(), onednn.unavailable())
class WaitingTest(absltest.TestCase):
  def answer(self, code, **environment):
    code = f'import os\nfrom bitnet_jax.onednn import library\n{code}\nprint(library.spins())'
    kept = {k: v for k, v in os.environ.items() if k not in ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT')}
    command, env = [sys.executable, '-c', code], {**kept, **environment}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return done.stdout.split()

  def test_who_asks_first_decides(self):
    self.assertEqual(self.answer('library.load(); library.spin()'), ['False'])

  def test_it_is_not_handed_on_to_other_processes(self):
    code = (
      'library.spin(); library.load()\n'
      'print([k for k in os.environ if k in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")])'
    )
    self.assertEqual(self.answer(code), ['[]', 'True'])

  def test_the_user_decides_before_that(self):
    self.assertEqual(self.answer('library.spin()', OMP_WAIT_POLICY='PASSIVE'), ['False'])


class PortionTest(parameterized.TestCase):
  @parameterized.product(count=(1, 2, 3, 7, 64, 255), workers=(1, 2, 16))
  def test_every_image_once_and_an_even_end(self, count, workers):
    portions = program.portion(count, workers)
    self.assertEqual([i for part in portions for i in part], [*range(count)])
    for part in portions:
      self.assertLessEqual(len(part), max((count - part[0]) / (2 * workers), 1))


class ArrangeTest(absltest.TestCase):
  def test_what_lives_at_the_same_time_lies_apart(self):
    lives = [(0, 2), (1, 3), (3, 5), (2, 4), (4, 6), (6, 6)]
    buffers = [layout.Buffer((1, 1), born, dies) for born, dies in lives]
    sizes = dict(zip(buffers, (8192, 100, 8192, 4096, 50, 70), strict=True))
    offsets = instance.arrange(buffers, sizes.__getitem__)
    for one in buffers:
      for other in buffers:
        if one is not other and one.born <= other.dies and other.born <= one.dies:
          apart = offsets[one] >= offsets[other] + sizes[other]
          self.assertTrue(apart or offsets[other] >= offsets[one] + sizes[one])
    self.assertLess(max(offsets[b] + sizes[b] for b in buffers), sum(sizes.values()))


if __name__ == '__main__':
  absltest.main()
