"""The networks and the optimizer against an independent PyTorch build.

The PyTorch side is written from the paper: channels first, left and right of every tree level as
two convolutions with a batch norm each. Both sides compute in float64, where rounding stays far
below 1e-9 and what is left is a difference of definition. The modules fix float32 for parameters,
statistics and logits, so here their name `jnp.float32` means float64; one test compares the float32
that users run.
"""

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl.testing import absltest, parameterized

from bitnet_jax import models
from bitnet_jax.models import layers, norm
from bitnet_jax.training import metrics, optim
from tests.helpers.small_networks import narrow
from tests.helpers.torch_reference import (
  CLASSES,
  F,
  cifar,
  counterpart,
  imagenet,
  load,
  make_batch,
  random_variables,
  torch,
  torch_images,
  torch_names,
)

RATES = {'learning_rate': 0.1, 'drop_factor': 0.2}
TORCH_SGD = {'momentum': 0.9, 'nesterov': True, 'weight_decay': 5e-4}


class Double:
  """`jax.numpy`, in which float32 means float64."""

  def __getattr__(self, name):
    return getattr(jnp, 'float64' if name == 'float32' else name)


def make_step(model, optimizer):
  """One training step, which also gives the logits in evaluation before it."""

  @jax.jit
  def step(variables, opt_state, images, labels):
    def loss_and_logits(params):
      logits, updated = model.apply(
        {**variables, 'params': params}, images, train=True, mutable=['batch_stats']
      )
      return metrics.cross_entropy(logits, labels).mean(), (logits, updated['batch_stats'])

    evaluated = model.apply(variables, images, train=False)
    (loss, (logits, stats)), grads = jax.value_and_grad(loss_and_logits, has_aux=True)(
      variables['params']
    )
    updates, opt_state = optimizer.update(grads, opt_state, variables['params'])
    params = jax.tree.map(jnp.add, variables['params'], updates)
    report = {'eval': evaluated, 'logits': logits, 'loss': loss, 'params': grads}
    return {'params': params, 'batch_stats': stats}, opt_state, report

  return step


class ParityTestCase(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.enterContext(jax.enable_x64(True))
    for module in (layers, metrics, norm, optim):
      self.enterContext(mock.patch.object(module, 'jnp', Double()))

  def assert_near(self, got, want, name, tolerance=1e-9):
    got, want = np.asarray(got), np.asarray(want.detach() if torch.is_tensor(want) else want)
    self.assertEqual(got.shape, want.shape, name)
    error = np.abs(got - want).max() / np.abs(want).max()
    self.assertLess(error, tolerance, f'{name}: off by {error:.1e} of the largest value')

  def assert_same_state(self, variables, reference, tolerance=1e-9):
    for name in torch_names(reference):
      self.assert_near(counterpart(name, variables), reference.state_dict()[name], name, tolerance)

  def compare_pass(self, report, reference, images, labels):
    """Evaluation, then what a pass in training gives: logits, loss and every gradient."""
    self.assertEqual(report['logits'].dtype, jnp.float64)
    self.assert_near(report['eval'], reference.eval()(torch_images(images)), 'logits, eval')
    logits = reference.train()(torch_images(images))
    loss = F.cross_entropy(logits, torch.tensor(labels))
    reference.zero_grad()
    loss.backward()
    self.assert_near(report['logits'], logits, 'logits, train')
    self.assert_near(report['loss'], loss, 'loss')
    for name, parameter in reference.named_parameters():
      self.assert_near(counterpart(name, report), parameter.grad, f'gradient of {name}')


class NetworkTest(ParityTestCase):
  @parameterized.parameters(
    ('bitnet', 1, 3, 1), ('bitnet', 1, 1, 1), ('wide_resnet', 1, 2, 1), ('plainnet', 2, 2, 1)
  )
  def test_three_steps_of_cifar_networks(self, kind, d, k, n):
    """At 14 pixels, then 7 and 4; the learning rate drops after two steps."""
    model = models.create_model(
      kind, num_classes=CLASSES, width=d, tree_depth=k, num_blocks=n, dtype=jnp.float64
    )
    variables, reference = random_variables(model, 14), cifar(kind, d, k, n, CLASSES)
    load(reference, variables)
    schedule = optim.make_schedule(
      schedule='step', drop_epochs=(2,), warmup_epochs=0, steps_per_epoch=2, total_steps=4, **RATES
    )
    optimizer = optim.make_optimizer(schedule, **TORCH_SGD)
    step, opt_state = make_step(model, optimizer), optimizer.init(variables['params'])
    torch_sgd = torch.optim.SGD(reference.parameters(), lr=0.1, **TORCH_SGD)
    torch_rate = torch.optim.lr_scheduler.MultiStepLR(torch_sgd, [2], gamma=0.2)
    for index in range(3):
      images, labels = make_batch(5, 14, seed=index)
      variables, opt_state, report = step(variables, opt_state, images, labels)
      self.compare_pass(report, reference, images, labels)
      torch_sgd.step()
      torch_rate.step()
      self.assert_same_state(variables, reference)

  @parameterized.parameters('bitnet26', 'resnet18b')
  def test_imagenet_networks(self, kind):
    """Blocks an eighth as wide, at 40 pixels: 20 after the stem, then 10, 5, 3 and 2."""
    model, variables, reference = self.make_imagenet(kind)
    images, labels = make_batch(3, 40)
    step = make_step(model, optax.set_to_zero())  # SGD is compared above
    variables, _, report = step(variables, optax.EmptyState(), images, labels)
    self.compare_pass(report, reference, images, labels)
    self.assert_same_state(variables, reference)

  @parameterized.parameters('bitnet34', 'resnet34b')
  def test_deep_imagenet_networks_forward(self, kind):
    """The classes are those of the test above, whose gradients take less time to compile."""
    model, variables, reference = self.make_imagenet(kind)
    images, _ = make_batch(3, 40)
    inputs = torch_images(images)
    self.assert_near(jax.jit(model.apply)(variables, images), reference.eval()(inputs), 'eval')
    train = jax.jit(functools.partial(model.apply, train=True, mutable=['batch_stats']))
    logits, updated = train(variables, images)
    self.assert_near(logits, reference.train()(inputs), 'train')
    self.assert_same_state({**variables, **updated}, reference)

  def make_imagenet(self, kind):
    factor = {} if kind.startswith('bitnet') else {'width_factor': 1 / 8}
    model = models.create_model(kind, num_classes=CLASSES, dtype=jnp.float64, **factor)
    model = narrow(model, 8) if kind.startswith('bitnet') else model
    variables, reference = random_variables(model, 40), imagenet(kind, 8, CLASSES)
    load(reference, variables)
    return model, variables, reference

  def test_batch_norm_groups_are_the_papers_two_devices(self):
    """Two replicas see half a batch each; gradients and, unlike there, statistics are averaged."""
    model = models.create_model(
      'bitnet', num_classes=CLASSES, width=1, tree_depth=1, num_blocks=1, dtype=jnp.float64,
      batch_norm_group=4,
    )  # fmt: skip
    variables = random_variables(model, 8)
    images, labels = make_batch(8, 8)
    optimizer = optim.make_optimizer(lambda _: 0.1, **TORCH_SGD)
    updated, _, report = make_step(model, optimizer)(
      variables, optimizer.init(variables['params']), images, labels
    )
    replicas, logits = [], []
    for half in (slice(0, 4), slice(4, 8)):
      replica = cifar('bitnet', 1, 1, 1, CLASSES)
      load(replica, variables)
      logits.append(replica.train()(torch_images(images[half])))
      F.cross_entropy(logits[-1], torch.tensor(labels[half])).backward()
      replicas.append(replica)
    self.assert_near(report['logits'], torch.cat(logits), 'logits')
    first, second = (dict(replica.named_parameters()) for replica in replicas)
    for name in first:
      mean = (first[name].grad + second[name].grad) / 2
      self.assert_near(counterpart(name, report), mean, f'gradient of {name}')
    first, second = (replica.state_dict() for replica in replicas)
    for name in first:
      if 'running' in name:
        self.assert_near(counterpart(name, updated), (first[name] + second[name]) / 2, name)


class Float32Test(parameterized.TestCase):
  """What users run: float32 throughout, against PyTorch in float64."""

  def test_bitnet(self):
    model = models.create_model('bitnet', num_classes=CLASSES, width=1, tree_depth=2, num_blocks=1)
    exact = random_variables(model, 14)
    variables = jax.tree.map(np.float32, exact)
    reference = cifar('bitnet', 1, 2, 1, CLASSES)
    load(reference, exact)
    images, labels = make_batch(5, 14)
    optimizer = optim.make_optimizer(lambda _: 0.1, **TORCH_SGD)
    updated, _, report = make_step(model, optimizer)(
      variables, optimizer.init(variables['params']), np.float32(images), np.int32(labels)
    )
    evaluated = reference.eval()(torch_images(images)).detach()
    logits = reference.train()(torch_images(images))
    F.cross_entropy(logits, torch.tensor(labels)).backward()
    torch.optim.SGD(reference.parameters(), lr=0.1, **TORCH_SGD).step()

    def assert_near(got, want, tolerance):
      self.assertEqual(got.dtype, np.float32)
      np.testing.assert_allclose(got, want, rtol=0, atol=tolerance * np.abs(want).max())

    assert_near(report['eval'], evaluated.numpy(), 1e-5)
    assert_near(report['logits'], logits.detach().numpy(), 1e-5)
    for name, parameter in reference.named_parameters():
      assert_near(counterpart(name, report), parameter.grad.numpy(), 1e-4)
    for name in torch_names(reference):
      assert_near(counterpart(name, updated), reference.state_dict()[name].numpy(), 1e-5)


if __name__ == '__main__':
  absltest.main()
