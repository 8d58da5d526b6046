"""The benchmark command.

python -m bitnet_jax.benchmark --what=input [--images=FOLDER_OR_TAR]
"""

from __future__ import annotations

from absl import flags

from bitnet_jax import cli

_WHAT = flags.DEFINE_enum('what', 'input', ['input'], 'What to measure.')
_IMAGES = flags.DEFINE_string(
  'images', '', 'Folder or tar archive of JPEG files; empty: photographs made of noise.'
)


def main(argv: list[str]) -> None:
  """Measures what the flags name."""
  del argv
  from bitnet_jax.benchmarks import input as input_benchmark

  input_benchmark.run(_IMAGES.value)


if __name__ == '__main__':
  cli.run(main)
