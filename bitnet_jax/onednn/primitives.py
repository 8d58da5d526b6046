"""Makes the plans of operations, with all oneDNN objects that a shape needs, for `custom_call`.

A plan is named by a string, because a compiled program can carry a string from one process to the
next. A plan uses one set of memory, so two threads need two plans of the same name.
"""

from __future__ import annotations

import ctypes
import functools
import math
import re
from collections.abc import Sequence

from bitnet_jax.onednn import library as dnn
from bitnet_jax.onednn.library import Handle

# One thread computes batch norm of arrays with fewer bytes.
_SHARED_BYTES = 2**22


class PrimitiveSequence:
  """Runs primitives one after the other on operands and results.

  Args:
    operands: descriptions of memory.
    results: descriptions of memory.
    groups: number of runs of the primitives; every operand and result has one part for each group,
      one after the other, except for those in `shared`.
    shared: positions, among operands and results, of memory that all groups use.
  """

  def __init__(
    self,
    operands: Sequence[Handle],
    results: Sequence[Handle],
    *,
    groups: int = 1,
    shared: Sequence[int] = (),
  ) -> None:
    descriptions = [*operands, *results]
    self.buffers = [dnn.memory(description) for description in descriptions]
    self._steps = [
      0 if i in shared else dnn.size_of(description) for i, description in enumerate(descriptions)
    ]
    self._groups = groups
    self._stream = dnn.stream()
    self._primitives: list[dnn.Primitive] = []
    self._owned: list[dnn.AlignedBuffer] = []

  def own(self, description: Handle) -> Handle:
    """Returns new memory between two primitives of the plan."""
    self._owned.append(dnn.AlignedBuffer(description))
    return self._owned[-1].memory

  def add(self, description: Handle, arguments: dict[int, Handle]) -> None:
    """Adds a primitive with its arguments."""
    self._primitives.append(dnn.Primitive(description, arguments))

  def run(self, addresses: Sequence[int]) -> None:
    """Runs the plan on the operands and results at the addresses."""
    for group in range(self._groups):
      for buffer, address, step in zip(self.buffers, addresses, self._steps, strict=True):
        dnn.set_data_handle(buffer, address + group * step)
      for primitive in self._primitives:
        primitive.execute(self._stream)
    dnn.load().dnnl_stream_wait(self._stream)


class _Convolution:
  """Describes a convolution, its input gradient and its kernel gradient."""

  def __init__(self, dtype: str, sizes: Sequence[str]) -> None:
    n, height, width, c, features, size, strides = (int(value) for value in sizes)
    pad = size // 2
    out = [(side + 2 * pad - size) // strides + 1 for side in (height, width)]
    self.src = dnn.images((n, height, width, c), dtype)
    self.dst = dnn.images((n, *out, features), dtype)
    self.kernel = dnn.kernels(size, c, features)
    self.packed = dnn.any_kernels(size, c, features, dtype)
    # Float32 for all types, because the gradient is summed over the examples.
    self.packed_gradient = dnn.any_kernels(size, c, features, 'f32')
    self.geometry = [dnn.dims((v, v)) for v in (strides, 0, pad, pad)]

  @functools.cached_property
  def forward(self) -> Handle:
    return dnn.create(
      'convolution_forward_primitive_desc_create',
      *(dnn.engine(), dnn.FORWARD_TRAINING, dnn.DIRECT),
      *(self.src, self.packed, None, self.dst, *self.geometry, dnn.attributes()),
    )

  @functools.cached_property
  def input_gradient(self) -> Handle:
    return dnn.create(
      'convolution_backward_data_primitive_desc_create',
      *(dnn.engine(), dnn.DIRECT, self.src, self.packed, self.dst, *self.geometry),
      *(self.forward, dnn.attributes()),
    )

  @functools.cached_property
  def kernel_gradient(self) -> Handle:
    return dnn.create(
      'convolution_backward_weights_primitive_desc_create',
      *(dnn.engine(), dnn.DIRECT, self.src, self.packed_gradient, None, self.dst),
      *(*self.geometry, self.forward, dnn.attributes()),
    )


def _conv_forward(dtype: str, sizes: Sequence[str]) -> PrimitiveSequence:
  """Makes the plan with operands x, kernel and result y."""
  conv = _Convolution(dtype, sizes)
  plan = PrimitiveSequence([conv.src, conv.kernel], [conv.dst])
  x, kernel, y = plan.buffers
  packed = _pack_kernel(plan, conv, conv.forward, kernel)
  plan.add(conv.forward, {dnn.SRC: x, dnn.WEIGHTS: packed, dnn.DST: y})
  return plan


def _conv_input_gradient(dtype: str, sizes: Sequence[str]) -> PrimitiveSequence:
  """Makes the plan with operands gradient of y, kernel and result gradient of x."""
  conv = _Convolution(dtype, sizes)
  plan = PrimitiveSequence([conv.dst, conv.kernel], [conv.src])
  dy, kernel, dx = plan.buffers
  packed = _pack_kernel(plan, conv, conv.input_gradient, kernel)
  plan.add(conv.input_gradient, {dnn.DIFF_DST: dy, dnn.WEIGHTS: packed, dnn.DIFF_SRC: dx})
  return plan


def _pack_kernel(
  plan: PrimitiveSequence, conv: _Convolution, description: Handle, kernel: Handle
) -> Handle:
  layout = dnn.query(description, dnn.WEIGHTS)
  packed = plan.own(layout)
  plan.add(dnn.reorder(conv.kernel, layout), {dnn.SRC: kernel, dnn.DST: packed})
  return packed


def _conv_kernel_gradient(dtype: str, sizes: Sequence[str]) -> PrimitiveSequence:
  """Makes the plan with operands x, gradient of y and result gradient of the kernel."""
  conv = _Convolution(dtype, sizes)
  plan = PrimitiveSequence([conv.src, conv.dst], [conv.kernel])
  x, dy, kernel = plan.buffers
  layout = dnn.query(conv.kernel_gradient, dnn.DIFF_WEIGHTS)
  packed = plan.own(layout)
  plan.add(conv.kernel_gradient, {dnn.SRC: x, dnn.DIFF_DST: dy, dnn.DIFF_WEIGHTS: packed})
  plan.add(dnn.reorder(layout, conv.kernel), {dnn.SRC: packed, dnn.DST: kernel})
  return plan


class _Norm:
  """Describes batch norm and its gradient."""

  def __init__(self, dtype: str, sizes: Sequence[str]) -> None:
    self.groups, n, positions, c = (int(value) for value in sizes[:4])
    self.relu = sizes[4] == 'relu'
    epsilon = ctypes.c_float(float(sizes[5]))
    self.images, self.vector = dnn.images((n, positions, 1, c), dtype), dnn.vector(c)
    flags = dnn.USE_SCALE | dnn.USE_SHIFT | (dnn.FUSE_RELU if self.relu else 0)
    self.forward = dnn.create(
      'batch_normalization_forward_primitive_desc_create',
      *(dnn.engine(), dnn.FORWARD_TRAINING, self.images, self.images),
      *(epsilon, flags, dnn.attributes()),
    )
    self.backward = dnn.create(
      'batch_normalization_backward_primitive_desc_create',
      *(dnn.engine(), dnn.BACKWARD, self.images, self.images, self.images),
      *(epsilon, flags, self.forward, dnn.attributes()),
    )
    # Marks the positive outputs of the ReLU.
    self.mask = [dnn.query(self.forward, dnn.WORKSPACE)] if self.relu else []


def _norm_forward(dtype: str, sizes: Sequence[str]) -> PrimitiveSequence:
  """Makes the plan: operands x, scale, bias; results y, mean, variance and the mask of a ReLU."""
  norm = _Norm(dtype, sizes)
  inputs, outputs = [norm.images, norm.vector, norm.vector], [norm.images, norm.vector, norm.vector]
  plan = PrimitiveSequence(inputs, [*outputs, *norm.mask], groups=norm.groups, shared=(1, 2))
  names = (dnn.SRC, dnn.SCALE, dnn.SHIFT, dnn.DST, dnn.MEAN, dnn.VARIANCE, dnn.WORKSPACE)
  plan.add(norm.forward, dict(zip(names, plan.buffers, strict=False)))
  return plan


def _norm_backward(dtype: str, sizes: Sequence[str]) -> PrimitiveSequence:
  """Makes the plan of the gradients.

  The operands are x, the gradient of y, mean, variance, scale and the mask of a ReLU, the results
  the gradients of x, scale and bias.
  """
  norm = _Norm(dtype, sizes)
  inputs = [norm.images, norm.images, norm.vector, norm.vector, norm.vector, *norm.mask]
  outputs = [norm.images, norm.vector, norm.vector]
  plan = PrimitiveSequence(inputs, outputs, groups=norm.groups, shared=(4,))
  names = [dnn.SRC, dnn.DIFF_DST, dnn.MEAN, dnn.VARIANCE, dnn.SCALE]
  names += [dnn.WORKSPACE] if norm.relu else []
  names += [dnn.DIFF_SRC, dnn.DIFF_SCALE, dnn.DIFF_SHIFT]
  plan.add(norm.backward, dict(zip(names, plan.buffers, strict=True)))
  return plan


def _matmul(dtype: str, sizes: Sequence[str]) -> PrimitiveSequence:
  """Makes the plan with operands a, b and result a b, for each of a batch of matrices."""
  *lengths, orders = sizes
  length = dict(zip('abmkn', map(int, lengths), strict=True))
  axes = ('abmk', 'abkn', 'abmn')
  descriptions = [
    dnn.matrices([length[axis] for axis in logical], [logical.index(axis) for axis in order], dtype)
    for logical, order in zip(axes, re.split(',|->', orders), strict=True)
  ]
  a, b, c = descriptions
  description = dnn.create(
    'matmul_primitive_desc_create', dnn.engine(), a, b, None, c, dnn.attributes()
  )
  plan = PrimitiveSequence([a, b], [c])
  names = (dnn.SRC, dnn.WEIGHTS, dnn.DST)
  plan.add(description, dict(zip(names, plan.buffers, strict=True)))
  return plan


_PLANS = {
  'matmul': _matmul,
  'conv_forward': _conv_forward,
  'conv_input_gradient': _conv_input_gradient,
  'conv_kernel_gradient': _conv_kernel_gradient,
  'norm_forward': _norm_forward,
  'norm_backward': _norm_backward,
}


def make(name: str) -> PrimitiveSequence:
  """Makes the plan of a name, which lists operation, type and sizes.

  The sizes of a convolution are examples, height, width, channels, filters, the kernel's side and
  the stride ('conv_forward f32 64 32 32 16 64 3 1'); of batch norm, groups, examples of a group,
  positions, channels, 'relu' or 'none', and epsilon; of products of matrices, their number (two
  factors), rows, inner length, columns, and the orders of the axes
  ('matmul f32 6 6 64 32 16 ambk,abkn->ambn').
  """
  operation, dtype, *sizes = name.split()
  return _PLANS[operation](dtype, sizes)


@functools.cache
def threads(name: bytes, limit: int) -> int:
  """Returns the number of threads for the plan of a name, at most `limit`.

  The threads of batch norm wait for each other without giving up their cores. Beside other programs
  on these cores, the wait takes ten times as long as several threads gain on small arrays.
  """
  operation, dtype, *sizes = name.decode().split()
  if not operation.startswith('norm'):
    return limit
  size = math.prod(int(value) for value in sizes[:4]) * (2 if dtype == 'bf16' else 4)
  return limit if size >= _SHARED_BYTES else 1


@functools.cache
def mask_bytes(name: str) -> int:
  """Returns the bytes of a group's mask of the ReLU, from the name of a 'norm_forward'."""
  _, dtype, *sizes = name.split()
  return dnn.size_of(_Norm(dtype, sizes).mask[0])
