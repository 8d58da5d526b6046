"""Trains a network, or goes on with a run: the training command.

python -m bitnet_jax.main --config=configs/digits_bitnet.py --workdir=runs/digits

Run it again to go on from the last checkpoint. On several machines, start it on each of them with
--coordinator_address=HOST:PORT --num_processes=N --process_id=I; on this machine alone, see
launch/local_cluster.sh. Any field of the configuration can be overridden:
--config.optim.learning_rate=0.05. All fields, with defaults and units, stand in
bitnet_jax/config/fields.py.
"""

from __future__ import annotations

import contextlib

import ml_collections
from absl import flags
from ml_collections import ConfigDict, config_flags

from bitnet_jax import errors
from bitnet_jax.checkpoints.workdir import Claim
from bitnet_jax.config import defaults, fields, validation
from bitnet_jax.distributed import cluster
from bitnet_jax.runtime import cli, host, output, path_flags, preemption, watchdog

_CONFIG = config_flags.DEFINE_config_file('config', None, 'File of the configuration.')
_ALLOWED = flags.DEFINE_multi_string(
  'allow_config_change', [], 'Field, as optim.learning_rate, that may differ from the checkpoint.'
)
_WORKDIR = path_flags.define('workdir', None, 'Where the run keeps all it writes.')
_COORDINATOR = flags.DEFINE_string(
  'coordinator_address',
  '',
  'HOST:PORT of process 0 of several; auto: ask Slurm, Open MPI, Kubernetes or the TPU pod.',
)
_NUM_PROCESSES = flags.DEFINE_integer('num_processes', 0, 'How many; 0: as found with auto.')
_PROCESS_ID = flags.DEFINE_integer('process_id', -1, 'Of this one, from 0; -1: as found with auto.')
_BIND = flags.DEFINE_string(
  'coordinator_bind_address', '', "Where process 0 listens; '': at the coordinator's address alone."
)


def main(_: list[str]) -> int:
  """Validates, then trains."""
  config, workdir = _CONFIG.value, _WORKDIR.value
  if config is None:
    raise errors.ConfigError('config', '', 'required', 'give --config=configs/NAME.py')
  if not workdir:
    raise errors.ConfigError('workdir', '', 'required', 'give --workdir=DIRECTORY')
  if not isinstance(config, ConfigDict):
    remedy = 'return what bitnet_jax.config.default_config() gives'
    raise errors.ConfigError('config', repr(config), 'get_config returned no ConfigDict', remedy)
  validation.validate(config)
  config.data.dir = path_flags.local('config.data.dir', config.data.dir)
  config.init_from = path_flags.local('config.init_from', config.init_from)
  allowed = [name.removeprefix('config.') for name in _ALLOWED.value]
  check_allowed(allowed)
  preemption.install_handlers()
  output.ignore_broken_pipes()
  with watchdog.Watchdog(config.watch.stall_seconds) as watch, member(config, watch):
    alone = not _COORDINATOR.value
    with Claim(workdir) if alone or cluster.is_primary() else contextlib.nullcontext() as claim:
      with host.gc_paused():
        # Each is loaded no sooner than it has to be: the next one takes three times as long.
        from bitnet_jax.data.datasets import sources

        sources.check_there(config.data.name, config.data.dir)
        from bitnet_jax.training import train

      result = train.train(
        config,
        workdir,
        watch=watch,
        allowed_changes=allowed,
        check_workdir=claim.check if claim else None,
      )
  if result:
    print(
      f'test error {result["error"]:.2%} ({result["correct"]}/{result["count"]} right), '
      f'{result["train_seconds"]:.0f} s of training, checkpoint {result["checkpoint"]}'
    )
  return 0


def member(
  config: ml_collections.ConfigDict, watch: watchdog.Watchdog
) -> contextlib.AbstractContextManager[None]:
  """The cluster that the flags name, watched by `watch`."""
  return cluster.join(
    _COORDINATOR.value,
    _NUM_PROCESSES.value,
    _PROCESS_ID.value,
    bind_address=_BIND.value,
    join_seconds=config.watch.join_seconds,
    peer_seconds=config.watch.peer_seconds,
    watch=watch,
  )


def check_allowed(names: list[str]) -> None:
  """Raises ConfigError for the first change that is of no field, or that nobody may allow."""
  known = {field.name for field in fields.FIELDS} | {'data.manifest'}
  for name in names:
    if name not in known:
      raise errors.ConfigError(
        'allow_config_change', name, 'unknown field', defaults.suggestion(name)
      )
    if defaults.role_of(name) == fields.NETWORK:
      remedy = 'take a new --workdir'
      raise errors.ConfigError('allow_config_change', name, 'a network cannot change', remedy)


if __name__ == '__main__':
  cli.run(main, end=cluster.end)
