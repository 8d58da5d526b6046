"""What a finished run leaves, without any training."""

import json
import pathlib

from bitnet_jax.config import defaults


def make_run(folder, name, sizes=(4, 6, 2), correct=9500, **overrides):
  """Writes what a run of a BitNet leaves; fields by their dotted names, '_' standing for a dot."""
  workdir = pathlib.Path(folder, name)
  workdir.mkdir(parents=True)
  config = defaults.default_config().to_dict()
  config['model'].update(zip(('width', 'tree_depth', 'num_blocks'), sizes, strict=True))
  for path, value in {'num_epochs': 200.0, **overrides}.items():
    section, _, leaf = path.rpartition('.')
    (config[section] if section else config)[leaf] = value
  (workdir / 'config.json').write_text(json.dumps(config))
  rows = [
    {'kind': 'epoch', 'epoch': 1.0, 'error': 0.5, 'loss': 1.0, 'stem_gradient_norm': 0.25},
    {'kind': 'epoch', 'epoch': 2.0, 'error': 0.125, 'loss': 0.5, 'stem_gradient_norm': 0.5},
    {'kind': 'eval', 'epoch': 2.0, 'error': 1 - correct / 10000, 'loss': 0.75},
  ]
  (workdir / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
  result = {
    'split': 'test',
    'correct': correct,
    'count': 10000,
    'step': 10,
    'epoch': config['num_epochs'],
    'train_seconds': 1.0,
    'checkpoint': 'none',
  }
  (workdir / 'result.json').write_text(json.dumps(result))
  return str(workdir)
