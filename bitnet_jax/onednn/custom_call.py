"""Calls plans of `primitives` from compiled programs, through XLA's foreign function interface.

XLA calls a C function, which ctypes makes from `_handler`, with a frame: the addresses of operands
and results and one attribute, the plan's name. A call takes Python some tens of microseconds, in
which no other Python code runs; the kernels run without the interpreter lock. The frame's layout is
that of xla/ffi/api/c_api.h, version 0, which later minor versions extend at the end.
"""

from __future__ import annotations

import collections
import ctypes
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from bitnet_jax.onednn import library, primitives
from bitnet_jax.runtime import host

_TARGET = 'bitnet_jax_onednn'
_METADATA_EXTENSION, _INTERNAL_ERROR = 1, 13
_API_VERSION = (0, 1)
_Pointers = ctypes.POINTER(ctypes.c_void_p)


class _Header(ctypes.Structure):
  _fields_ = [('struct_size', ctypes.c_size_t), ('extension', ctypes.c_void_p)]


class _Values(_Header):
  _fields_ = [('size', ctypes.c_int64), ('types', ctypes.c_void_p), ('values', _Pointers)]


class _Attributes(_Header):
  _fields_ = [
    ('size', ctypes.c_int64),
    ('types', ctypes.c_void_p),
    ('names', ctypes.c_void_p),
    ('values', _Pointers),
  ]


class _Frame(_Header):
  _fields_ = [
    ('api', ctypes.c_void_p),
    ('context', ctypes.c_void_p),
    ('stage', ctypes.c_int),
    ('operands', _Values),
    ('results', _Values),
    ('attributes', _Attributes),
  ]


class _Buffer(_Header):
  _fields_ = [('dtype', ctypes.c_int), ('data', ctypes.c_void_p)]


class _Span(ctypes.Structure):
  _fields_ = [('start', ctypes.c_void_p), ('length', ctypes.c_size_t)]


class _Version(_Header):
  _fields_ = [('major', ctypes.c_int), ('minor', ctypes.c_int)]


class _Api(_Header):
  _fields_ = [
    ('version', _Version),
    ('internal', ctypes.c_void_p),
    ('create_error', ctypes.c_void_p),
  ]


class _ErrorArguments(_Header):
  _fields_ = [('message', ctypes.c_char_p), ('code', ctypes.c_int)]


class _MetadataExtension(ctypes.Structure):
  _fields_ = [
    ('struct_size', ctypes.c_size_t),
    ('type', ctypes.c_int),
    ('next', ctypes.c_void_p),
    ('metadata', ctypes.c_void_p),
  ]


class _Metadata(ctypes.Structure):
  _fields_ = [('struct_size', ctypes.c_size_t), ('version', _Version), ('traits', ctypes.c_uint32)]


# Plans that no thread uses now, by name.
_idle: dict[bytes, list[primitives.PrimitiveSequence]] = collections.defaultdict(list)


@ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
def _handler(address: int) -> int | None:
  frame = _Frame.from_address(address)
  try:
    if frame.extension:
      _answer_metadata(frame.extension)
    else:
      _execute(frame)
  except Exception as error:  # An exception must not pass through C.
    return _make_error(frame, f'{type(error).__name__}: {error}')
  return None


def _execute(frame: _Frame) -> None:
  span = _Span.from_address(frame.attributes.values[0])
  name = ctypes.string_at(span.start, span.length)
  operands, results = frame.operands, frame.results
  addresses = [_Buffer.from_address(operands.values[i]).data for i in range(operands.size)]
  addresses += [_Buffer.from_address(results.values[i]).data for i in range(results.size)]
  library.set_threads(primitives.threads(name, _threads()))
  idle = _idle[name]
  try:
    plan = idle.pop()
  except IndexError:
    plan = primitives.make(name.decode())
  plan.run(addresses)
  idle.append(plan)


@functools.cache
def _threads() -> int:
  """Returns the threads of a kernel: the devices of a process share the cores."""
  return max(host.available_cores() // jax.local_device_count('cpu'), 1)


def _answer_metadata(address: int) -> None:
  extension = _MetadataExtension.from_address(address)
  if extension.type == _METADATA_EXTENSION:
    metadata = _Metadata.from_address(extension.metadata)
    metadata.version.major, metadata.version.minor = _API_VERSION


def _make_error(frame: _Frame, message: str) -> int:
  create = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(
    _Api.from_address(frame.api).create_error
  )
  size = ctypes.sizeof(_ErrorArguments)
  arguments = _ErrorArguments(size, None, message.encode(), _INTERNAL_ERROR)
  return create(ctypes.addressof(arguments))


@functools.cache
def _register() -> None:
  jax.ffi.register_ffi_target(_TARGET, jax.ffi.pycapsule(_handler), platform='cpu')


def call(
  name: str, operands: Sequence[jax.Array], results: Sequence[jax.ShapeDtypeStruct]
) -> list[jax.Array]:
  """Runs a plan within a compiled program for the CPU.

  Args:
    name: name of the plan, as `primitives.make` reads it.
    operands: arrays that the plan reads.
    results: shapes and types of the arrays that the plan writes.

  Returns:
    The results.
  """
  _register()
  # JAX waits at exit only for calls with side effects. A later call would find Python shut down,
  # and the process would never end.
  return list(jax.ffi.ffi_call(_TARGET, list(results), has_side_effect=True)(*operands, plan=name))


def matmul(a: jax.Array, b: jax.Array, orders: str) -> jax.Array:
  """Multiplies float32 matrices, `[a, b, m, k]` by `[a, b, k, n]`, without a gradient.

  Args:
    a: left matrices, with their axes in any order.
    b: right matrices, with their axes in any order.
    orders: order of the axes of both and of the result, as 'ambk,abkn->ambn'; oneDNN's fast kernel
      supports some orders only.

  Returns:
    The products, float32, with axes in the order of the result.
  """
  operands, order = orders.split('->')
  length: dict[str, int] = {}
  for array, axes in zip((a, b), operands.split(','), strict=True):
    length.update(zip(axes, array.shape, strict=True))
  result = jax.ShapeDtypeStruct([length[axis] for axis in order], jnp.float32)
  sizes = ' '.join(str(length[axis]) for axis in 'abmkn')
  return call(f'matmul f32 {sizes} {orders}', (a, b), [result])[0]


@functools.cache
def unavailable() -> str:
  """Returns why oneDNN cannot be called on this machine; '' where it can."""
  try:
    if 'f32' not in library.fast_types():
      return 'the processor has no AVX2'
    with jax.default_device(jax.local_devices(backend='cpu')[0]):
      return _check()
  except (OSError, AttributeError, ValueError, RuntimeError) as error:
    return ' '.join(str(error).split())


def _check() -> str:
  """Returns what is wrong with a product of matrices, as a frame of another layout would cause."""
  rng = np.random.default_rng(0)
  sizes = (1, 2, 2, 8), (1, 1, 8, 16)
  x, kernel = (rng.normal(size=size).astype(np.float32) for size in sizes)
  result = jax.ShapeDtypeStruct((1, 2, 2, 16), jnp.float32)
  name = 'conv_forward f32 1 2 2 8 16 1 1'
  product = jax.jit(lambda *operands: call(name, operands, [result])[0])
  y = product(x, kernel)
  return '' if np.allclose(y, x @ kernel[0, 0], atol=1e-4) else 'it computes wrong results'
