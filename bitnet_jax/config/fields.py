"""Every field of a configuration: default, unit, range and meaning.

A file in `configs/` starts from `default_config()` and overrides what its table row needs; the
command line overrides that (`--config.optim.learning_rate=0.2`). Only primitives are stored: what
follows from them (total steps, examples per device) is derived where it is used.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from bitnet_jax.config.datasets import DATASETS
from bitnet_jax.config.networks import NETWORKS

# Roles of a field: what it decides, and so whether it may change when a run is resumed.
NETWORK = 'network'  # Which function a network is; never changes.
RECIPE = 'recipe'  # What training computes; changes only where --allow_config_change names it.
RUNTIME = 'runtime'  # How it is computed, watched and recorded; may change.
PROCESS = 'process'  # Likewise, and each process of a run may have its own.


@dataclasses.dataclass(frozen=True)
class Field:
  """One field of the configuration.

  Attributes:
    name: dotted path below `config`.
    default: its type is the field's type. 0 and '' stand for off, never None.
    doc: meaning and unit.
    low: smallest value, or smallest element of a tuple.
    high: largest value, or largest element of a tuple.
    choices: allowed values, () for any.
    role: `NETWORK`, `RECIPE`, `RUNTIME` or `PROCESS`.
  """

  name: str
  default: Any
  doc: str
  low: float = -math.inf
  high: float = math.inf
  choices: tuple[Any, ...] = ()
  role: str = RECIPE


FIELDS: tuple[Field, ...] = (
  Field('seed', 0, 'seed of initialization, data order and augmentation', 0, 2**31 - 1),
  Field(
    'num_epochs',
    200.0,
    'passes over the training split, or a fraction of one',
    0.0,
    1e5,
    role=RUNTIME,
  ),
  Field('global_batch_size', 128, 'examples of a step, over all devices', 1, 2**20),
  Field(
    'steps_per_execution',
    0,
    'most steps of one call of the device, which ends where metrics, a checkpoint or an epoch are '
    'due; 0: 10 of resident data on a GPU or TPU, else 1',
    0,
    100,
    role=RUNTIME,
  ),
  Field(
    'init_from',
    '',
    "work directory, or one of its checkpoints, to start from with a new head; '': from scratch",
    role=PROCESS,
  ),
  # Network.
  Field('model.name', 'bitnet', 'network', choices=tuple(NETWORKS), role=NETWORK),
  Field(
    'model.width', 4, 'd: stages are 16d, 32d, 64d wide (CIFAR networks)', 1, 1024, role=NETWORK
  ),
  Field('model.tree_depth', 6, 'k: levels of a block (CIFAR networks)', 1, 16, role=NETWORK),
  Field('model.num_blocks', 2, 'n: blocks of a stage (CIFAR networks)', 1, 1000, role=NETWORK),
  Field(
    'model.width_factor', 1.0, 'times the width of resnet18b, resnet34b', 0.25, 16.0, role=NETWORK
  ),
  Field(
    'model.dtype',
    'float32',
    'of the computation; parameters stay float32',
    choices=('float32', 'bfloat16'),
    role=NETWORK,
  ),
  Field(
    'model.kernels',
    'auto',
    'xla; onednn (CPU); winograd, onednn with fewer multiplications in float32; auto, the fastest',
    choices=('auto', 'xla', 'onednn', 'winograd'),
    role=RUNTIME,
  ),
  Field(
    'model.conv_init',
    'fan_out',
    'kernel std sqrt(2/fan): fan_out (authors) or fan_in (Wide ResNet code)',
    choices=('fan_out', 'fan_in'),
    role=NETWORK,
  ),
  Field(
    'model.norm_scale_init',
    'ones',
    'initial batch norm scale: ones (authors) or uniform in [0, 1) (Wide ResNet code)',
    choices=('ones', 'uniform'),
    role=NETWORK,
  ),
  Field(
    'model.batch_norm_group',
    64,
    'examples that share statistics (64 a GPU for CIFAR, 32 for ILSVRC12); 0: the global batch',
    0,
    2**20,
    role=NETWORK,
  ),
  Field(
    'model.batch_norm_momentum',
    0.9,
    'share of the running average kept a step',
    0.0,
    1.0,
    role=NETWORK,
  ),
  Field('model.batch_norm_epsilon', 1e-5, 'added to the variance', 1e-12, 1.0, role=NETWORK),
  # Data.
  Field(
    'data.name',
    'cifar10',
    'data set',
    choices=tuple(DATASETS),
  ),
  Field(
    'data.dir',
    '',
    "tfds data directory ('': its default), or the image folder itself",
    role=PROCESS,
  ),
  Field('data.train_split', 'train', 'tfds split, as train or train[:45000]; or sub-directory'),
  Field('data.test_split', 'test', 'split evaluated during training', role=RUNTIME),
  Field('data.image_size', 0, "side in pixels; 0: the data set's own", 0, 4096),
  Field(
    'data.mean',
    (125.3, 123.0, 113.9),
    'per channel, on the scale 0..255 (one value: gray)',
    0.0,
    255.0,
  ),
  Field('data.std', (63.0, 62.1, 66.7), 'per channel, on the scale 0..255', 1e-3, 255.0),
  Field(
    'data.pipeline',
    'resident',
    'resident (the split lies on the device) or stream (read and decoded as it goes)',
    choices=('resident', 'stream'),
  ),
  Field(
    'data.train_crop',
    'fit',
    'fit (shorter side to image_size, center) or random_area (ILSVRC12; stream only)',
    choices=('fit', 'random_area'),
  ),
  Field('data.crop_area', (0.08, 1.0), 'share of the image that random_area takes', 1e-6, 1.0),
  Field('data.crop_aspect', (0.75, 4 / 3), 'width / height that random_area takes', 1e-3, 1e3),
  Field('data.antialias', False, 'filter where random_area and eval.resize shrink (Torch: no)'),
  Field(
    'data.workers',
    -1,
    'processes that decode the stream; -1: one a core; 0: none',
    -1,
    1024,
    role=PROCESS,
  ),
  Field(
    'data.timeout_seconds', 120.0, 'longest wait for a batch of the stream', 1.0, 1e5, role=PROCESS
  ),
  Field(
    'data.on_error',
    'raise',
    'an image that cannot be read ends the run (raise) or is replaced and counted (skip)',
    choices=('raise', 'skip'),
    role=RUNTIME,
  ),
  Field(
    'data.max_skipped',
    1e-4,
    'share of a split that may be skipped before a run ends',
    0,
    1.0,
    role=RUNTIME,
  ),
  Field(
    'data.verify',
    False,
    'compare the SHA-256 of all shards at the start above 1 GiB too',
    role=RUNTIME,
  ),
  # Augmentation, on the device.
  Field('augment.pad', 4, 'pixels padded on each side before the random crop; 0: no crop', 0, 1024),
  Field(
    'augment.pad_mode',
    'zeros',
    'zeros after normalization (paper) or reflect (Wide ResNet code)',
    choices=('zeros', 'reflect'),
  ),
  Field('augment.flip', True, 'mirror half of the images left to right'),
  Field(
    'augment.jitter',
    0.0,
    'brightness, contrast and saturation change by up to this share (0.4 for ILSVRC12)',
    0.0,
    1.0,
  ),
  Field(
    'augment.lighting', 0.0, 'deviation of noise along color components (0.1 there)', 0.0, 10.0
  ),
  # Optimization.
  Field('optim.learning_rate', 0.1, 'initial learning rate', 0.0, 1e6),
  Field('optim.schedule', 'step', 'step (the paper) or cosine to zero', choices=('step', 'cosine')),
  Field('optim.drop_epochs', (60, 120, 160), 'epochs that begin with a drop', 1, 10**5),
  Field('optim.drop_factor', 0.2, 'times the rate at a drop (0.1 in the authors code)', 0.0, 1.0),
  Field('optim.warmup_epochs', 0.0, 'epochs of linear rise from 0', 0.0, 1e5),
  Field('optim.momentum', 0.9, 'of SGD', 0.0, 1.0),
  Field('optim.nesterov', True, 'Nesterov momentum; dampening is 0'),
  Field('optim.weight_decay', 5e-4, 'L2, on every parameter', 0.0, 1e3),
  Field('optim.reset_momentum_at_drop', False, 'clear the momentum at a drop (Wide ResNet code)'),
  # Evaluation, checkpoints, logs.
  Field(
    'eval.batch_size',
    500,
    'examples of an evaluation step, over all devices',
    1,
    2**20,
    role=RUNTIME,
  ),
  Field(
    'eval.resize',
    0,
    'shorter side in pixels before the center is cropped (256 there); 0: image_size itself',
    0,
    8192,
    role=RUNTIME,
  ),
  Field(
    'eval.every_epochs',
    1,
    'epochs between evaluations; 0: at the end alone',
    0,
    10**5,
    role=RUNTIME,
  ),
  Field(
    'checkpoint.every_steps',
    0,
    'steps between them; 0: at the end of epochs',
    0,
    10**9,
    role=RUNTIME,
  ),
  Field(
    'checkpoint.every_epochs',
    1,
    'epochs between checkpoints; 0: at the end alone',
    0,
    10**5,
    role=RUNTIME,
  ),
  Field(
    'checkpoint.keep_latest',
    2,
    'newest kept; one stands while one is written',
    2,
    10**4,
    role=RUNTIME,
  ),
  Field('checkpoint.keep_best', 1, 'best ones kept beside them', 0, 10**4, role=RUNTIME),
  # Ends that nobody else would notice; see also data.timeout_seconds. First steps, which compile,
  # saves and the start of several processes may take ten times as long.
  Field(
    'watch.stall_seconds', 120.0, 'longest wait for a step; 0: no limit', 0.0, 1e6, role=RUNTIME
  ),
  Field('watch.peer_seconds', 30.0, 'a process silent for so long is lost', 1.0, 1e5, role=RUNTIME),
  Field(
    'watch.join_seconds', 120.0, 'longest wait for all processes to start', 1.0, 1e5, role=RUNTIME
  ),
  Field('log.every_steps', 50, 'steps between training metrics', 1, 10**9, role=RUNTIME),
  Field('log.tensorboard', True, 'write TensorBoard events beside metrics.jsonl', role=RUNTIME),
)

BY_NAME = {field.name: field for field in FIELDS}
