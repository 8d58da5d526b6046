"""Set before JAX is imported: many host devices, and compilation that does not optimise."""

import os

from absl import flags

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ['XLA_FLAGS'] = ' '.join(
  [
    os.environ.get('XLA_FLAGS', ''),
    '--xla_force_host_platform_device_count=8',
    '--xla_backend_optimization_level=0',
    '--xla_llvm_disable_expensive_passes=true',
  ]
)
flags.FLAGS.mark_as_parsed()  # absltest's temporary directories ask for its flags.
