"""Opens a prepared data set of unknown origin, so that its files cannot make tfds import code.

`tfds.builder_from_directory` imports the module of every feature class that the data set's JSON
names, even from the current directory, which may be the directory of the unpacked data.
"""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import tensorflow_datasets as tfds

from bitnet_jax import errors

_MODULE = 'tensorflow_datasets.core.features'
_TOP = f'{_MODULE}.features_dict.FeaturesDict'
# The features of data sets that `prepare` writes: class -> key of its content in the JSON.
_CONTENTS = {
  f'{_MODULE}.image_feature.Image': 'image',
  f'{_MODULE}.class_label_feature.ClassLabel': 'classLabel',
  f'{_MODULE}.text_feature.Text': 'text',
}
_WORDS = {'pythonClassName', 'description', 'valueRange'}
_REQUIRED = {'image': 'image', 'label': 'classLabel'}


def open_directory(directory: str) -> Any:
  """Returns the tfds builder of a data set's directory, NAME/VERSION.

  Raises:
    DataError: a file is missing or broken, or names a class that is not one of `_CONTENTS`.
  """
  root = pathlib.Path(os.path.expanduser(directory))
  info = _read(root / 'dataset_info.json')
  if 'features' in info:
    _check(root / 'dataset_info.json', info['features'])
  _check(root / 'features.json', _read(root / 'features.json'))
  try:
    return tfds.builder_from_directory(root)
  except Exception as error:
    raise _fault(root, f'cannot be opened ({error})') from error


def _read(path: pathlib.Path) -> dict[str, Any]:
  try:
    content = json.loads(path.read_text())
  except OSError as error:
    raise _fault(path, f'cannot be read ({error.strerror})') from error
  except (ValueError, RecursionError) as error:
    raise _fault(path, f'is no JSON ({error})') from error
  if not isinstance(content, dict):
    raise _fault(path, 'is no JSON object')
  return content


def _check(path: pathlib.Path, top: Any) -> None:
  """Raises DataError for JSON in any other form than tfds writes for a flat dictionary."""
  fields = top.get('featuresDict') if isinstance(top, dict) else None
  features = fields.get('features') if isinstance(fields, dict) else None
  if not isinstance(features, dict) or (
    set(top) - _WORDS != {'featuresDict'} or top.get('pythonClassName') != _TOP
  ):
    raise _fault(path, 'is no FeaturesDict of tfds')
  for name, feature in features.items():
    kind = feature.get('pythonClassName') if isinstance(feature, dict) else None
    content = _CONTENTS.get(kind) if isinstance(kind, str) else None
    if content is None or set(feature) - _WORDS != {content}:
      raise _fault(path, f'feature {name!r} is of class {kind}, not Image, ClassLabel or Text')
  for name, content in _REQUIRED.items():
    if content not in features.get(name, {}):
      raise _fault(path, f'has no {content} feature {name!r}')


def _fault(path: pathlib.Path, problem: str) -> errors.DataError:
  remedy = 'prepare the data set again with python -m bitnet_jax.prepare'
  return errors.DataError('file', path, problem, remedy)
