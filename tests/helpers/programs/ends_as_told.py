"""Stands for the training command: prints its flags, ends with the code given for its process."""

import os
import sys

flags = dict(argument.partition('=')[::2] for argument in sys.argv[1:])
os.write(1, f'{sorted(flags)}\n'.encode())  # At once: the others write there too.
sys.exit(int(flags['--codes'].split(',')[int(flags['--process_id'])]))
