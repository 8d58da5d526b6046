"""Prints the checkpoint of a finished run and its result in one line, for whoever trained it.

    python -m bitnet_jax.analysis.result --workdir=runs/quickstart

The command reads `result.json`, which a run writes at its end.
"""

from __future__ import annotations

from collections.abc import Sequence

from absl import flags

from bitnet_jax.logs import result as result_lib
from bitnet_jax.runtime import cli, path_flags


def main(argv: Sequence[str]) -> None:
  """Prints checkpoint and result of the run that the flag names."""
  del argv
  result = result_lib.read(flags.FLAGS.workdir)
  print(f'checkpoint: {result["checkpoint"]}')
  print(result_lib.describe(result))


if __name__ == '__main__':
  path_flags.define('workdir', None, 'Directory of a finished run.', required=True)
  cli.run(main)
