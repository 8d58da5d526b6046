"""Wraps the part of oneDNN's C interface that `primitives` calls, through ctypes.

A memory description has logical dimensions in oneDNN's order (examples, channels, height, width)
and strides, which give the layout: NHWC for images, HWIO for kernels. The library is distributed as
a Python package without a module.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import importlib.metadata
import os
from collections.abc import Iterator, Mapping, Sequence

PACKAGE = 'onednn-cpu-gomp'
FLOAT_TYPES = {'f32': 3, 'bf16': 2}

# Numbers of dnnl_types.h, oneDNN 3.
FORWARD_TRAINING, BACKWARD, DIRECT = 64, 128, 1
USE_SCALE, USE_SHIFT, FUSE_RELU = 2, 4, 8
SRC, DST, WEIGHTS, MEAN, VARIANCE, SCALE, SHIFT = 1, 17, 33, 49, 50, 51, 52
WORKSPACE, SCRATCHPAD = 64, 80
DIFF_SRC, DIFF_DST, DIFF_WEIGHTS, DIFF_SCALE, DIFF_SHIFT = 129, 145, 161, 255, 256
_QUERY = {WEIGHTS: 131, DIFF_WEIGHTS: 132, WORKSPACE: 135, SCRATCHPAD: 136}
_CPU, _IN_ORDER, _USER_SCRATCHPAD = 1, 1, 1
_ANY_LAYOUT = 1
_ISA_AVX2, _ISA_AVX512 = 0x7, 0x27

_ALIGNMENT = 64
_Dims = ctypes.c_int64 * 12
Handle = ctypes.c_void_p


# OpenMP's threads sleep while they wait for the next kernel: threads that spin would take the cores
# from XLA's own threads.
_WAIT_POLICY = ('OMP_WAIT_POLICY', 'PASSIVE')
_USER_SETTINGS = ('OMP_WAIT_POLICY', 'GOMP_SPINCOUNT')


class _Argument(ctypes.Structure):
  _fields_ = [('index', ctypes.c_int), ('memory', Handle)]


@functools.cache
def load() -> ctypes.CDLL:
  """Loads the library.

  Raises:
    OSError: the library or libgomp, which it needs, is not installed.
  """
  try:
    files = importlib.metadata.files(PACKAGE) or []
  except importlib.metadata.PackageNotFoundError:
    raise OSError(f'{PACKAGE} is not installed') from None
  paths = [file.locate() for file in files if file.name == 'libdnnl.so.3']
  if not paths:
    raise OSError(f'{PACKAGE} has no libdnnl.so.3')
  with _waiting():
    library = ctypes.CDLL(os.path.realpath(str(paths[0])))
  library.dnnl_primitive_desc_query_md.restype = Handle
  library.dnnl_primitive_desc_query_md.argtypes = [Handle, ctypes.c_int, ctypes.c_int]
  library.dnnl_memory_desc_get_size.restype = ctypes.c_size_t
  library.dnnl_memory_desc_get_size.argtypes = [Handle]
  library.dnnl_memory_set_data_handle.argtypes = [Handle, Handle]
  library.dnnl_primitive_execute.argtypes = [Handle, Handle, ctypes.c_int, Handle]
  library.dnnl_stream_wait.argtypes = [Handle]
  return library


@contextlib.contextmanager
def _waiting() -> Iterator[None]:
  """Sets the wait policy of threads while the library is loaded, unless the user has set one.

  The variable is removed afterwards: PyTorch or another process must not inherit the policy.
  """
  if any(os.environ.get(name) for name in _USER_SETTINGS):
    yield
    return
  name, value = _WAIT_POLICY
  os.environ[name] = value
  try:
    yield
  finally:
    del os.environ[name]


def fast_types() -> tuple[str, ...]:
  """Returns the types for which the processor has fast kernels."""
  isa = load().dnnl_get_effective_cpu_isa()
  needed = {'f32': _ISA_AVX2, 'bf16': _ISA_AVX512}
  return tuple(name for name, bits in needed.items() if isa & bits == bits)


@functools.cache
def _openmp() -> ctypes.CDLL:
  return ctypes.CDLL('libgomp.so.1')  # The copy that the library has loaded.


def set_threads(count: int) -> None:
  """Sets the number of threads of the kernels that this thread creates and executes."""
  _openmp().omp_set_num_threads(count)


def create(function: str, *arguments: object) -> Handle:
  """Returns the object that `dnnl_FUNCTION` creates, which is never freed, because plans are kept.

  Raises:
    RuntimeError: oneDNN reports an error.
  """
  handle = Handle()
  status = getattr(load(), f'dnnl_{function}')(ctypes.byref(handle), *arguments)
  if status:
    raise RuntimeError(f'oneDNN: dnnl_{function} ended with status {status}')
  return handle


@functools.cache
def engine() -> Handle:
  """Returns the engine of the CPU."""
  return create('engine_create', _CPU, ctypes.c_size_t(0))


@functools.cache
def attributes() -> Handle:
  """Returns the attributes of all primitives, whose scratchpads are `AlignedBuffer`s."""
  handle = create('primitive_attr_create')
  load().dnnl_primitive_attr_set_scratchpad_mode(handle, _USER_SCRATCHPAD)
  return handle


def stream() -> Handle:
  """Returns a new queue of primitives, for one plan."""
  return create('stream_create', engine(), _IN_ORDER)


def dims(values: Sequence[int]) -> ctypes.Array:
  """Returns dimensions, strides or padding as an argument of the library."""
  return _Dims(*values)


def _strided(shape: Sequence[int], strides: Sequence[int], dtype: str) -> Handle:
  ndims, kind = len(shape), FLOAT_TYPES[dtype]
  return create('memory_desc_create_with_strides', ndims, dims(shape), kind, dims(strides))


def images(shape: Sequence[int], dtype: str) -> Handle:
  """Describes `[n, h, w, c]`."""
  n, h, w, c = shape
  return _strided((n, c, h, w), (h * w * c, 1, w * c, c), dtype)


def matrices(shape: Sequence[int], order: Sequence[int], dtype: str) -> Handle:
  """Describes an array of a shape whose axes lie in `order`, the outermost first."""
  strides, step = [0] * len(shape), 1
  for axis in reversed(order):
    strides[axis], step = step, step * shape[axis]
  return _strided(shape, strides, dtype)


def kernels(size: int, c: int, features: int) -> Handle:
  """Describes `[size, size, c, features]`, float32."""
  strides = (1, features, size * c * features, c * features)
  return _strided((features, c, size, size), strides, 'f32')


def any_kernels(size: int, c: int, features: int, dtype: str) -> Handle:
  """Describes a kernel in the layout that oneDNN prefers."""
  shape, kind = dims((features, c, size, size)), FLOAT_TYPES[dtype]
  return create('memory_desc_create_with_tag', 4, shape, kind, _ANY_LAYOUT)


def vector(length: int) -> Handle:
  """Describes `[length]`, float32."""
  return _strided((length,), (1,), 'f32')


def query(description: Handle, index: int) -> Handle:
  """Returns the description of an argument's memory that a primitive asks for."""
  return Handle(load().dnnl_primitive_desc_query_md(description, _QUERY[index], 0))


def size_of(memory_desc: Handle) -> int:
  """Returns the number of bytes of a memory description."""
  return load().dnnl_memory_desc_get_size(memory_desc)


def memory(memory_desc: Handle) -> Handle:
  """Returns memory whose address `set_data_handle` sets later."""
  return create('memory_create', memory_desc, engine(), Handle(0))


def set_data_handle(memory_object: Handle, address: int) -> None:
  """Sets the address of memory."""
  load().dnnl_memory_set_data_handle(memory_object, address)


def reorder(source: Handle, target: Handle) -> Handle:
  """Describes a copy from one layout and type to another."""
  return create('reorder_primitive_desc_create', source, engine(), target, engine(), attributes())


class AlignedBuffer:
  """Allocates aligned memory that lives as long as the object."""

  def __init__(self, memory_desc: Handle) -> None:
    self._raw = ctypes.create_string_buffer(size_of(memory_desc) + _ALIGNMENT)
    self.address = -(-ctypes.addressof(self._raw) // _ALIGNMENT) * _ALIGNMENT
    self.memory = memory(memory_desc)
    set_data_handle(self.memory, self.address)


class Primitive:
  """Executes a kernel on the memory of its arguments."""

  def __init__(self, description: Handle, arguments: Mapping[int, Handle]) -> None:
    self._primitive = create('primitive_create', description)
    arguments = dict(arguments)
    scratchpad = query(description, SCRATCHPAD)
    if size_of(scratchpad):
      self._scratchpad = AlignedBuffer(scratchpad)
      arguments[SCRATCHPAD] = self._scratchpad.memory
    self._count = len(arguments)
    pairs = [_Argument(index, place) for index, place in arguments.items()]
    self._arguments = (_Argument * self._count)(*pairs)

  def execute(self, queue: Handle) -> None:
    """Executes the kernel; raises RuntimeError where oneDNN reports an error."""
    status = load().dnnl_primitive_execute(self._primitive, queue, self._count, self._arguments)
    if status:
      raise RuntimeError(f'oneDNN: dnnl_primitive_execute ended with status {status}')
