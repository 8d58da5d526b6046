"""Opens data sets that are not prepared, on a machine without any network.

Takes the directory and the names; prints for each its error and the seconds, and at the end whether
TensorFlow was loaded.
"""

import socket
import sys
import time


def refuse(*_, **__):
  raise AssertionError('touched the network')


socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
socket.socket.__init__ = refuse

from bitnet_jax import errors  # noqa: E402
from bitnet_jax.data.datasets import sources  # noqa: E402

directory, *names = sys.argv[1:]
for name in names:
  start = time.monotonic()
  try:
    sources.open_source(name, 'train', directory)
  except errors.DataError as error:
    print(error)
  print(time.monotonic() - start)
print([name for name in sys.modules if name.split('.')[0] == 'tensorflow'])
