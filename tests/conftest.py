"""Set before JAX is imported: many host devices, and compilation that does not optimize."""

import os
import tempfile

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
# Compiled programs are shared by the processes of a run of the tests, and by nothing else.
if not os.environ.get('PYTEST_XDIST_WORKER'):  # What its parent set, a worker inherits.
  _CACHE = tempfile.TemporaryDirectory(prefix='bitnet_jax_tests_')
  os.environ['XDG_CACHE_HOME'] = _CACHE.name
flags.FLAGS.mark_as_parsed()  # absltest's temporary directories ask for its flags.
