"""Evaluates a trained network on any split, with one crop or ten: the evaluation command.

python -m bitnet_jax.evaluate --workdir=DIR [--crops=10] [--split=train] [--step=N]

Every example counts once, whatever the batch and the devices. Writes to DIR/evaluation, under
names that say split, crops and step: a JSON file with loss and top-1 and top-5 error, a CSV with
the error of each class, and a CSV with how often which class was taken for which.
"""

from __future__ import annotations

from absl import flags

from bitnet_jax.runtime import cli, interrupt, path_flags


def define_flags() -> None:
  """Defines the command's flags; who imports this module has flags of their own."""
  path_flags.define('workdir', None, 'Work directory of the run.', required=True)
  flags.DEFINE_string('split', '', "Split to evaluate; empty: the run's test split.")
  flags.DEFINE_enum('crops', '1', ['1', '10'], 'Crops whose logits are averaged.')
  flags.DEFINE_integer('step', 0, 'Step of the checkpoint; 0: the newest.', lower_bound=0)
  path_flags.define('data_dir', '', 'Where the data is now; empty: where the run had it.')
  flags.DEFINE_integer('batch_size', 0, "Examples of a step; 0: the run's.", lower_bound=0)
  flags.DEFINE_integer(
    'resize', 0, "Shorter side before cropping, in pixels; 0: the run's.", lower_bound=0
  )
  flags.DEFINE_integer('workers', -1, "Processes that decode; -1: the run's.", lower_bound=-1)


def main(argv: list[str]) -> int:
  """Evaluates what the flags name and says what came out."""
  del argv
  given = flags.FLAGS
  interrupt.load('bitnet_jax.training.evaluate_run')
  from bitnet_jax.training import evaluate_run

  result = evaluate_run.evaluate(
    given.workdir,
    split=given.split,
    crops=int(given.crops),
    step=given.step,
    data_dir=given.data_dir,
    batch_size=given.batch_size,
    resize=given.resize,
    workers=given.workers,
  )
  print(
    f'{result["split"]}, {result["crops"]} crop(s), step {result["step"]}: '
    f'top-1 error {result["error"]:.2%}, top-5 error {result["error_top5"]:.2%}, '
    f'loss {result["loss"]:.4f} ({result["count"]} examples); {result["file"]}'
  )
  return 0


if __name__ == '__main__':
  define_flags()
  cli.run(main)
