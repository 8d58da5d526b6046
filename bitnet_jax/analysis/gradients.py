"""Prints, and on request draws, the gradient's norm in every layer at any checkpoint of a run.

    python -m bitnet_jax.analysis.gradients --workdir=DIR [--step=N] [--output=gradients.png]

Each layer, from the first convolution to the head, gets the L2 norm of the loss's gradient with
respect to its weights (without weight decay, averaged over batches of the run's batch size), the L2
norm of the weights, and the ratio of the two. The network runs as in training (batch norm uses the
batch's statistics, in the run's groups) on images that are normalized and not augmented.
"""

from __future__ import annotations

import math
import re
import statistics
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
  """Holds the norms of a layer.

  Attributes:
    name: path of the layer in the checkpoint, joined by '/'.
    parameters: number of weights in the kernel.
    gradient: mean over the batches of the gradient's L2 norm.
    weight: L2 norm of the kernel.
  """

  name: str
  parameters: int
  gradient: float
  weight: float


def layer_norms(run: pretrained.Trained, split: str = '', batches: int = 8) -> list[LayerNorm]:
  """Computes the norms of a checkpoint.

  Args:
    run: a checkpoint of `pretrained.load`.
    split: the split whose images are taken, in the order of the run's first epoch; '' for the run's
      training split.
    batches: number of batches at most.

  Returns:
    A row for each kernel (of convolutions and the head), from the image to the logits.

  Raises:
    ConfigError: the split does not fill a batch.
    DataError: the split cannot be read, or does not fit in memory (name a part of it).
  """
  config = run.config
  split = split or config.data.train_split
  source = splits.open_split(config, split)
  size = splits.image_shape(config, source)[0]
  data = arrays.load_arrays(source, size, max_bytes=resident_pipeline.MAX_BYTES)
  batches = min(len(data.label) // config.global_batch_size, batches)
  if batches < 1:
    problem = f'{len(data.label)} images, not a batch'
    raise errors.ConfigError('split', split, problem, 'name a larger one')
  model = build.make_model(config, len(run.class_names), '')
  norms_of = make_norms(model, mean=config.data.mean, std=config.data.std)
  permutation = order.epoch_order(config.seed, 0, len(data.label))
  norms = [
    jax.device_get(norms_of(run.variables, data.image[indices], data.label[indices]))
    for indices in np.split(permutation[: batches * config.global_batch_size], batches)
  ]
  kernels = kernels_by_name(run.variables['params'])
  return [
    LayerNorm(
      name,
      kernels[name].size,
      statistics.fmean(float(norm[name]) for norm in norms),
      float(np.linalg.norm(kernels[name])),
    )
    for name in sorted(kernels, key=_order)
  ]


def make_norms(
  model: Any, *, mean: Sequence[float], std: Sequence[float]
) -> Callable[[Tree, np.ndarray, np.ndarray], dict[str, jax.Array]]:
  """Returns `norms(variables, images, labels)`, which gives the gradient's L2 norm of each kernel.

  Args:
    model: the network.
    mean: mean of each channel, on the scale 0..255.
    std: standard deviation of each channel, on the same scale.

  Returns:
    A function of variables, images `[batch, height, width, channels]`, 0..255, and labels
    `[batch]`.
  """

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
  """Returns the kernels of a tree of parameters by the path of their layer."""
  return {
    '/'.join(part.key for part in path[:-1]): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(params)
    if path[-1].key == 'kernel'
  }


def _order(name: str) -> tuple[int, list[Any]]:
  """Returns a sort key that puts layers in the order of computation, a block's projection last."""
  rank = {'stem_conv': 0, 'head': 2}.get(name.partition('/')[0], 1)
  numbers = [int(number) for number in re.findall(r'\d+', name)]
  return rank, [*numbers, *([math.inf] if name.endswith('projection') else [])]


def table(norms: Sequence[LayerNorm]) -> str:
  """Returns a text table with a line for each layer."""
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
  """Draws the gradient's norms over the layers, the first layer at the top."""
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
  """Prints the norms of the checkpoint that the flags name, and draws them into `--output`."""
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
