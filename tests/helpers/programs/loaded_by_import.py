"""Imports the modules that are named first and prints which of those after `--` that loaded."""

import importlib
import sys

end = sys.argv.index('--')
for name in sys.argv[1:end]:
  importlib.import_module(name)
packages = {name.split('.')[0] for name in sys.modules}
print([name for name in sys.argv[end + 1 :] if name in packages])
