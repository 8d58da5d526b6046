"""Prints the page faults of three uses of a large piece of memory in a second thread."""

import ctypes
import json
import resource
import threading

from bitnet_jax.runtime import host

SIZE = 2**27  # Bytes, as in a training step.

done = host.keep_freed_memory()
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes = [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
libc.memset.argtypes = [ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t]
faults = []


def use_memory():
  for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    piece = libc.malloc(SIZE)
    libc.memset(piece, 1, SIZE)
    libc.free(piece)
    faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)


thread = threading.Thread(target=use_memory)
thread.start()
thread.join()
print(json.dumps([done, faults]))
