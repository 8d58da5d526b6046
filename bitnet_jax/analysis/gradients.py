"""The gradient's norm in every layer, at any checkpoint.

    python -m bitnet_jax.analysis.gradients --workdir=DIR [--step=N] [--output=gradients.png]

For each layer, from the first convolution to the head: the L2 norm of the loss's gradient with
respect to its weights, without weight decay, as a mean over batches of the run's batch size; the
weights' own norm; and the ratio of the two. The network runs as in training (batch norm by the
batch's statistics, in the run's groups) on images that are normalized and not augmented.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from matplotlib import figure

from bitnet_jax import errors
from bitnet_jax.analysis.plotting import plots
from bitnet_jax.checkpoints import pretrained
from bitnet_jax.data import splits
from bitnet_jax.data.batches import arrays, order, resident_pipeline
from bitnet_jax.data.images import augment
from bitnet_jax.models import build
from bitnet_jax.runtime import cli, path_flags
from bitnet_jax.training import metrics

Tree = Any


class LayerNorm(NamedTuple):
  """A layer's norms.

  Attributes:
    name: as in the checkpoint, parts joined by '/'.
    parameters: in its kernel.
    gradient: mean over the batches of the L2 norm of the gradient.
    weight: L2 norm of the kernel.
  """

  name: str
  parameters: int
  gradient: float
  weight: float


def layer_norms(run: pretrained.Trained, split: str = '', batches: int = 8) -> list[LayerNorm]:
  """Computes the norms of a checkpoint.

  Args:
    run: of `trained.load`.
    split: whose images are taken, in the order of the run's first epoch; '' for its training split.
    batches: how many at most.

  Returns:
    A row for each kernel (of convolutions and the head), from the image to the logits.

  Raises:
    ConfigError: the split does not fill a batch, or `batches` is less than 1.
    DataError: the split cannot be read, or does not fit in memory (name a part of it).
  """
  config = run.config
  source = splits.open_split(config, split or config.data.train_split)
  size = splits.image_shape(config, source)[0]
  data = arrays.load_arrays(source, size, max_bytes=resident_pipeline.MAX_BYTES)
  available = len(data.label) // config.global_batch_size
  if min(available, batches) < 1:
    raise errors.ConfigError(
      'split',
      split or config.data.train_split,
      f'{len(data.label)} images, not a batch',
      'name a larger one',
    )
  model = build.make_model(config, len(run.class_names), '')
  norms_of = make_norms(model, mean=config.data.mean, std=config.data.std)
  permutation = order.epoch_order(config.seed, 0, len(data.label))
  sums: dict[str, float] = {}
  for chosen in permutation[: min(available, batches) * config.global_batch_size].reshape(
    -1, config.global_batch_size
  ):
    norms = jax.device_get(norms_of(run.variables, data.image[chosen], data.label[chosen]))
    for name, norm in norms.items():
      sums[name] = sums.get(name, 0.0) + float(norm) / min(available, batches)
  kernels = kernels_by_name(run.variables['params'])
  return [
    LayerNorm(name, kernels[name].size, sums[name], float(np.linalg.norm(kernels[name])))
    for name in sorted(kernels, key=_order)
  ]


def make_norms(
  model: Any, *, mean: Sequence[float], std: Sequence[float]
) -> Callable[[Tree, np.ndarray, np.ndarray], dict[str, jax.Array]]:
  """Builds `norms(variables, images, labels)`: the gradient's norm of each kernel, by name."""

  def loss(params: Tree, variables: Tree, images: jax.Array, labels: jax.Array) -> jax.Array:
    logits, _ = model.apply(
      {**variables, 'params': params}, images, train=True, mutable=['batch_stats']
    )
    return metrics.cross_entropy(logits, labels).mean()

  @jax.jit
  def norms(variables: Tree, images: jax.Array, labels: jax.Array) -> dict[str, jax.Array]:
    pixels = augment.normalize(images, mean, std)
    grads = jax.grad(loss)(variables['params'], variables, pixels, labels)
    return {name: jnp.linalg.norm(grad) for name, grad in kernels_by_name(grads).items()}

  return norms


def kernels_by_name(params: Tree) -> dict[str, Any]:
  """The kernels of a tree of parameters, by the path of their layer."""
  leaves = jax.tree_util.tree_leaves_with_path(params)
  return {
    '/'.join(part.key for part in path[:-1]): leaf
    for path, leaf in leaves
    if path[-1].key == 'kernel'
  }


def _order(name: str) -> tuple[int, list[Any]]:
  """Stem, stages, head; numbers within a name count as numbers, a projection comes last."""
  rank = {'stem_conv': 0, 'head': 2}.get(name.partition('/')[0], 1)
  digits = ''.join(letter if letter.isdigit() else ' ' for letter in name)
  numbers = [int(number) for number in digits.split()]
  return rank, [*numbers, *([10**6] if name.endswith('projection') else [])]


def table(norms: Sequence[LayerNorm]) -> str:
  """A line for each layer."""
  width = max(len(norm.name) for norm in norms)
  lines = [f'{"layer":<{width}}  {"weights":>10}  {"gradient":>10}  {"weight":>10}  {"ratio":>10}']
  for norm in norms:
    ratio = norm.gradient / norm.weight if norm.weight else float('nan')
    lines.append(
      f'{norm.name:<{width}}  {norm.parameters:>10,}  {norm.gradient:>10.4g}  '
      f'{norm.weight:>10.4g}  {ratio:>10.4g}'
    )
  return '\n'.join(lines)


def draw(norms: Sequence[LayerNorm], title: str) -> figure.Figure:
  """Draws the norms over the layers, the first one at the top."""
  fig = plots.new_figure(9, 1.4 + 0.24 * len(norms))
  panel = fig.subplots()
  rows = range(len(norms))
  panel.plot([norm.gradient for norm in norms], rows, 'o', color=plots.COLORS[0], gid='gradient')
  panel.set_yticks(rows, [norm.name for norm in norms], fontsize=9)
  panel.invert_yaxis()
  plots.dress(panel, title, 'L2 norm of the gradient, mean over the batches', '')
  values = [norm.gradient for norm in norms if norm.gradient > 0]
  if values and max(values) > 10 * min(values):
    plots.logarithmic(panel)
  else:
    panel.set_xlim(left=0)
  return fig


def main(argv: Sequence[str]) -> None:
  """Prints the norms, and draws them where a file is named."""
  del argv
  options = flags.FLAGS
  if options.output:
    plots.check_output(options.output)
  run = pretrained.load(options.workdir, options.step)
  norms = layer_norms(run, options.split, options.batches)
  print(f'step {run.step}')
  print(table(norms))
  if options.output:
    plots.save(draw(norms, f'Gradient by layer, step {run.step}'), options.output)
    print(f'gradients: {options.output}')


if __name__ == '__main__':
  path_flags.define('workdir', None, 'Directory of a run with a checkpoint.', required=True)
  flags.DEFINE_integer('step', 0, 'Step of the checkpoint; 0: the newest.', lower_bound=0)
  flags.DEFINE_string('split', '', "Split, as train[:2560]; '': the run's training split.")
  flags.DEFINE_integer('batches', 8, 'How many batches are averaged.', lower_bound=1)
  path_flags.define('output', '', 'PNG or SVG to write too.')
  cli.run(main)
