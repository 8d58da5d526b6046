"""Decodes the image on its standard input."""

import sys

from bitnet_jax.data.images import decode

decode.decode(sys.stdin.buffer.read(), 3, 'key')
