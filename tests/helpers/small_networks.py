"""Networks of ILSVRC12 that are small enough for a test."""

from bitnet_jax.models import bitnet, resnet


def narrow(model, factor):
  """The network with narrower blocks; its stem keeps its filters. Networks of CIFAR stay."""
  if isinstance(model, bitnet.ImagenetBitNet):
    stages = tuple(
      tuple((width // factor, tree_depth) for width, tree_depth in stage) for stage in model.stages
    )
    return model.clone(stages=stages)
  if isinstance(model, resnet.ResNetB):
    return model.clone(width_factor=model.width_factor / factor)
  return model


def shorten(model):
  """The network with two blocks a stage. Networks of CIFAR stay."""
  if isinstance(model, resnet.ResNetB):
    return model.clone(stage_blocks=(2,) * len(model.stage_blocks))
  return model
