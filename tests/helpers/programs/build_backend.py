"""Builds the wheel of an editable install of a package of one file; with $HANG it never ends."""

import os
import pathlib
import time
import zipfile

_FILES = {
  'fake.py': 'number = 7',
  'fake-1.dist-info/METADATA': 'Metadata-Version: 2.1\nName: fake\nVersion: 1\n',
  'fake-1.dist-info/WHEEL': 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n',
}


def build_editable(directory, config_settings=None, metadata_directory=None):
  del config_settings, metadata_directory
  with open('builds', 'a') as file:
    file.write('x')
  if os.environ.get('HANG'):
    pathlib.Path('hangs').touch()
    time.sleep(600)
  name = 'fake-1-py3-none-any.whl'
  with zipfile.ZipFile(pathlib.Path(directory, name), 'w') as wheel:
    for path, text in _FILES.items():
      wheel.writestr(path, text)
    wheel.writestr('fake-1.dist-info/RECORD', ',,\n'.join([*_FILES, 'fake-1.dist-info/RECORD', '']))
  return name
