"""Counts the linear regions of randomly drawn networks by tree depth, for the figure of regions.

    python -m bitnet_jax.analysis.region_counts

The command counts again and prints the rows of `COUNTS`, in about eleven minutes on one core; a
test repeats the quickest counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bitnet_jax.analysis.regions import bounds, dense
from bitnet_jax.runtime import cli

FAMILIES = {'bitnet': dense.DenseBitBlock, 'conventional': dense.DenseConvenBlock}
FEATURES, NUM_BLOCKS, NUM_INPUTS = 64, 2, 2
TREE_DEPTHS = (1, 2, 3, 4, 5, 6)
SEEDS = (0, 1, 2, 3, 4)

# Linear regions and activation regions for each seed, by family and tree depth.
COUNTS: dict[tuple[str, int], tuple[tuple[int, int], ...]] = {
  ('bitnet', 1): ((4954, 4954), (4889, 4889), (5125, 5125), (6258, 6258), (4478, 4478)),
  ('bitnet', 2): ((12131, 12131), (10889, 10889), (11549, 11549), (12302, 12302), (10043, 10043)),
  ('bitnet', 3): ((15011, 15011), (9437, 9437), (15449, 15449), (16107, 16107), (14491, 14491)),
  ('bitnet', 4): ((18699, 18699), (10924, 10924), (18002, 18304), (18526, 18526), (16753, 16753)),
  ('bitnet', 5): ((21090, 21418), (10853, 11147), (19745, 20092), (21081, 21081), (18011, 18011)),
  ('bitnet', 6): ((21910, 23630), (11053, 11053), (20518, 20896), (22786, 22786), (17373, 17373)),
  ('conventional', 1): ((4954, 4954), (4889, 4889), (5125, 5125), (6258, 6258), (4478, 4478)),
  ('conventional', 2): ((17965, 17965), (16816, 16816), (23075, 23075), (30241, 30241),
                        (17200, 17200)),
  ('conventional', 3): ((34369, 34369), (44032, 44032), (53903, 53903), (74051, 74051),
                        (38122, 38122)),
  ('conventional', 4): ((58922, 58922), (83684, 83684), (96271, 96271), (135811, 135811),
                        (60229, 60229)),
  ('conventional', 5): ((86695, 86695), (134731, 134731), (153638, 153638),
                        (207731, 207731), (76908, 76908)),
  ('conventional', 6): ((117655, 117655), (186495, 186495), (234605, 234605),
                        (295362, 295362), (98167, 98167)),
}  # fmt: skip


def create(family: str, tree_depth: int) -> dense.DenseNetwork:
  """Returns the network of a family, with one output."""
  return dense.DenseNetwork(FAMILIES[family], FEATURES, tree_depth, NUM_BLOCKS, 1)


def shapes(family: str, tree_depth: int) -> Any:
  """Returns the shapes of a network's 'params', which are not drawn."""
  model = create(family, tree_depth)
  image = jax.ShapeDtypeStruct((1, NUM_INPUTS), jnp.float32)
  return jax.eval_shape(lambda x: model.init(jax.random.key(0), x), image)['params']


def parameters(family: str, tree_depth: int) -> int:
  """Returns the number of weights and biases of a network."""
  return sum(leaf.size for leaf in jax.tree.leaves(shapes(family, tree_depth)))


def draw(family: str, tree_depth: int, seed: int) -> Any:
  """Draws random 'params'.

  Weights are normal with variance 2 / fan in, so that signals keep their size from layer to layer.
  Biases are uniform within 1 / sqrt(fan in), as Torch draws them; the network's own initialization
  has no bias, so that every region's border would pass through the origin.
  """
  stream = np.random.RandomState(seed)  # NumPy has frozen its streams, unlike the Generator's.

  def layer(tree: Any) -> Any:
    if 'kernel' not in tree:
      return {name: layer(tree[name]) for name in sorted(tree)}
    fan_in, features = tree['kernel'].shape
    kernel = stream.standard_normal((fan_in, features)) * np.sqrt(2 / fan_in)
    bias = stream.uniform(-1, 1, features) / np.sqrt(fan_in)
    return {'kernel': kernel.astype(np.float32), 'bias': bias.astype(np.float32)}

  return layer(shapes(family, tree_depth))


def count(family: str, tree_depth: int, seed: int) -> bounds.Count:
  """Counts the regions of a random network over the square of inputs between -1 and 1."""
  params = draw(family, tree_depth, seed)
  return bounds.count_on_plane(params, np.zeros(NUM_INPUTS), np.eye(NUM_INPUTS))


def main(argv: Sequence[str]) -> None:
  """Counts everything and prints the rows of `COUNTS` as they stand in this file."""
  del argv
  for family, tree_depth in COUNTS:
    counts = [count(family, tree_depth, seed) for seed in SEEDS]
    row = tuple((each.linear, each.activation) for each in counts)
    print(f'  ({family!r}, {tree_depth}): {row!r},', flush=True)


if __name__ == '__main__':
  cli.run(main)
