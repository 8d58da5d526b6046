"""Computes convolution and batch norm for the layers with oneDNN's kernels, in place of XLA's."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from bitnet_jax.onednn import ops, winograd


@dataclasses.dataclass(frozen=True)
class OneDnnKernels:
  """Computes with oneDNN's kernels for a CPU; `models.kernels.Kernels` describes the methods.

  Attributes:
    fallback: kernels for other types, few channels and groups over several devices.
    winograd: whether convolutions use Winograd's method where that is faster.
  """

  fallback: Any
  winograd: bool = False

  @property
  def name(self) -> str:
    """Returns 'winograd' or 'onednn'."""
    return 'winograd' if self.winograd else 'onednn'

  def convolve(self, x: jax.Array, kernel: jax.Array, strides: int) -> jax.Array:
    """Convolves `x`, padded with half the kernel on every side."""
    if not ops.runs_conv(x.dtype):
      return self.fallback.convolve(x, kernel, strides)
    if self.winograd and winograd.pays(x, kernel.shape, strides):
      return winograd.conv(x, kernel)
    return ops.conv(x, kernel, strides)

  def normalize(
    self,
    x: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    epsilon: float,
    relu: bool,
    over_devices: Callable[[jax.Array], jax.Array] | None,
  ) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalizes each group by its own mean and variance."""
    if over_devices or not ops.runs_norm(x.dtype, x.shape[-1]):
      return self.fallback.normalize(x, scale, bias, epsilon, relu, over_devices)
    return ops.normalize(x, scale, bias, epsilon, relu)


def make_kernels(name: str, dtype: str, fallback: Any) -> OneDnnKernels:
  """Returns the fastest kernels of a kind.

  Args:
    name: 'onednn', 'winograd' or 'auto', as `config.model.kernels`.
    dtype: type of the computation; Winograd's method is for 'float32' alone.
    fallback: kernels for what oneDNN does not compute.
  """
  return OneDnnKernels(fallback, winograd=name != 'onednn' and dtype == 'float32')
