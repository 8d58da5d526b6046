"""The channels of a tree lie in a row in the end, and nothing is overwritten that is needed."""

import numpy as np
from absl.testing import absltest, parameterized

from bitnet_jax.onednn import graph, layout

SIDE = (4, 4)


def conv(x, features, *, relu=True, size=3):
  kernel = np.ones((size, size, x.shape[2], features), np.float32)
  return graph.Conv(
    shape=(*SIDE, features),
    inputs=[x],
    kernel=kernel,
    bias=np.zeros(features, np.float32),
    strides=1,
    relu=relu,
  )


def part(x, start, size):
  return graph.Part(shape=(*SIDE, size), inputs=[x], start=start)


def join(*parts):
  return graph.Join(shape=(*SIDE, sum(p.shape[2] for p in parts)), inputs=list(parts))


def tree(x, features, depth, relu=True):
  """Nodes of a tree; the last one is its output."""
  nodes, outputs = [], []
  for level in range(depth):
    nodes.append(conv(x, features >> level, relu=relu))
    half = features >> level + 1
    outputs.append(part(nodes[-1], 0, half))
    x = part(nodes[-1], half, half)
    nodes += [outputs[-1], x]
  return [*nodes, join(*outputs, x)]


def laid_out(nodes, block=16):
  features = nodes[-1]
  network = graph.Network(
    nodes=nodes, features=features, kernel=np.zeros((features.shape[2], 2)), bias=np.zeros(2)
  )
  return layout.Layout(network, block)


def image_and_stem():
  image = graph.Image(shape=(*SIDE, 3))
  return [image, conv(image, 16)]


class LayoutTest(parameterized.TestCase):
  @parameterized.parameters(
    (64, 6, 16, [16, 32, 16, 16, 16, 16], 64, 96),
    (64, 6, 8, [16, 32, 16, 8, 8, 8], 64, 96),
    (64, 1, 16, [16], 64, 64),
    (192, 4, 16, [16, 96, 48, 32], 192, 192 + 96),
    (16, 4, 16, [16, 16, 16, 16], 16, 16 + 16),
  )
  def test_a_tree(self, features, depth, block, reads, result, memory):
    start = image_and_stem()
    got = laid_out([*start, *tree(start[-1], features, depth)], block)
    self.assertEqual([step.source.lanes for step in got.steps[1:]], reads)
    self.assertEqual(got.features.lanes, result)
    self.assertLen(set(got.feature_lanes), features)
    buffer = got.features.buffer
    self.assertLessEqual(buffer.high - buffer.low, memory)

  @parameterized.parameters((64, 6), (48, 3), (80, 4), (192, 4), (40, 3))
  def test_every_channel_ends_where_the_next_one_looks_for_it(self, features, depth):
    """Runs the layout on numbers that tell the channels apart."""
    start = image_and_stem()
    nodes = [*start, *tree(start[-1], features, depth)]
    got, memory = laid_out(nodes), {}
    for step in got.steps:
      wanted = layout.channels(step.node.inputs[0]) if step.source else []
      for channel, lane in zip(wanted, step.inputs, strict=bool(step.source)):
        self.assertEqual(memory[step.source.buffer, step.source.start + int(lane)], channel)
      moved = {
        step.target.start + to: memory[step.source.buffer, step.source.start + lane]
        for lane, to in step.passed
      }
      for lane in range(step.target.start, step.target.stop):
        memory[step.target.buffer, lane] = moved.get(lane)
      for channel, lane in enumerate(step.outputs):
        memory[step.target.buffer, step.target.start + int(lane)] = (step.node, channel)
    found = [memory[got.features.buffer, got.features.start + int(i)] for i in got.feature_lanes]
    self.assertEqual(found, layout.channels(nodes[-1]))

  def test_a_sum_takes_the_place_of_what_it_is_added_to(self):
    start = image_and_stem()
    branch = conv(start[-1], 16)
    last = conv(branch, 16, relu=False)
    last.inputs.append(start[-1])
    got = laid_out([*start, branch, last])
    self.assertEqual(got.steps[2].target, got.steps[0].target)
    self.assertNotEqual(got.steps[1].target, got.steps[0].target)

  def test_a_sum_does_not_destroy_what_is_needed(self):
    start = image_and_stem()
    branch = conv(start[-1], 16)
    branch.inputs.append(start[-1])
    with self.assertRaisesRegex(graph.Unsupported, 'would'):
      laid_out([*start, branch, conv(start[-1], 16)])

  def test_a_sum_with_what_its_own_convolution_reads(self):
    start = image_and_stem()
    last = conv(start[-1], 16, relu=False)
    last.inputs.append(start[-1])
    with self.assertRaisesRegex(graph.Unsupported, 'overwrite what its convolution reads'):
      laid_out([*start, last])

  def test_what_is_passed_on_must_not_be_negative(self):
    start = image_and_stem()
    nodes = tree(start[-1], 16, 3, relu=False)
    laid_out([*start, *nodes])
    nodes[3].relu = True
    with self.assertRaisesRegex(graph.Unsupported, 'passed on'):
      laid_out([*start, *nodes])

  def test_a_channel_that_is_joined_twice(self):
    start = image_and_stem()
    a, b = conv(start[-1], 16), conv(start[-1], 16)
    with self.assertRaisesRegex(graph.Unsupported, 'joined twice'):
      one = conv(join(a, b), 16)
      laid_out([*start, a, b, one, conv(join(b, one), 16)])

  def test_only_a_convolution_reads_the_image(self):
    image = graph.Image(shape=(*SIDE, 3))
    pool = graph.MaxPool(shape=(*SIDE, 3), inputs=[image], size=3, strides=1, padding=1)
    with self.assertRaises(graph.Unsupported):
      laid_out([image, pool])


if __name__ == '__main__':
  absltest.main()
