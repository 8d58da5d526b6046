"""Runs a command without any network, then prints which of some packages it had loaded.

Takes the packages, separated by commas, the command's module, and the command's arguments.
"""

import atexit
import runpy
import socket
import sys


def refuse(*_, **__):
  raise AssertionError('touched the network')


socket.socket.__init__ = socket.create_connection = socket.getaddrinfo = refuse
packages, module = sys.argv[1].split(','), sys.argv[2]
atexit.register(lambda: print([name for name in packages if name in sys.modules]))
del sys.argv[1:3]
runpy.run_module(module, run_name='__main__')
