"""Stands for pytest: prints its arguments and $CLOSING, then ends with $CODE."""

import os
import sys

print(sys.argv[1:])
print(os.environ['CLOSING'], flush=True)
print('a late warning', file=sys.stderr)
sys.exit(int(os.environ['CODE']))
