"""Prints what is counted of a network, and what the golden table says: golden_counts.py NAME."""

import sys

from bitnet_jax.analysis.audit import counts, paper

for entry in paper.GOLDEN:
  if entry.network.name == sys.argv[1]:
    print(
      entry.quantity, counts.count(entry.network, entry.quantity, entry.convention), entry.digits
    )
