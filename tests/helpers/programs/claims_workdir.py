"""Claims a work directory and keeps it for a minute."""

import sys
import time

from bitnet_jax.checkpoints.workdir import Claim

claim = Claim(sys.argv[1])
print('claimed', flush=True)
time.sleep(60)
