"""A network trained on ILSVRC12, made to tell the classes of one's own folder of photographs.

Reproduces no row of the paper. The folder is laid out as train/CLASS/*.jpg and test/CLASS/*.jpg;
the head is new and knows the classes by the directories' names, all else starts from the
checkpoint.

Command: python -m bitnet_jax.main --config=configs/folder_finetune.py:bitnet26 \
  --config.init_from=runs/bitnet26 --config.data.dir=FOLDER --workdir=runs/mine
Hardware, time and error of ours: not run.
"""

from bitnet_jax.config import imagenet_config


def get_config(network='bitnet26'):
  """Returns the configuration; `network` is that of the checkpoint."""
  config = imagenet_config()
  config.model.name = network
  config.num_epochs = 30.0
  config.global_batch_size = 32
  config.data.name = 'folder'
  config.data.dir = 'FOLDER'
  config.data.test_split = 'test'
  # A tenth of the rate that the trained layers began with.
  config.optim.learning_rate = 0.01
  config.optim.drop_epochs = (11, 21)
  config.eval.batch_size = 32
  config.log.every_steps = 10
  return config
