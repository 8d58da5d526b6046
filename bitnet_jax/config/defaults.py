"""Makes the default configuration, and looks up and walks its fields."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any

import ml_collections

from bitnet_jax import errors
from bitnet_jax.config.fields import BY_NAME, FIELDS, RECIPE


def default_config() -> ml_collections.ConfigDict:
  """Returns the paper's CIFAR recipe: every field at its default."""
  tree: dict[str, Any] = {}
  for field in FIELDS:
    *sections, leaf = field.name.split('.')
    node = tree
    for section in sections:
      node = node.setdefault(section, {})
    node[leaf] = field.default
  return ml_collections.ConfigDict(tree).lock()


def default_of(name: str) -> Any:
  """Returns a field's default; None where there is no such field."""
  return BY_NAME[name].default if name in BY_NAME else None


def role_of(name: str) -> str:
  """Returns a field's role; `RECIPE` where there is no such field."""
  return BY_NAME[name].role if name in BY_NAME else RECIPE


def set_sizes(config: ml_collections.ConfigDict, row: str) -> None:
  """Sets a CIFAR network's sizes from a table row's key, as '12,4,2' for (d, k, n).

  Raises:
    ConfigError: the key is not three whole numbers.
  """
  parts = row.split(',')
  if len(parts) != 3 or not all(part.strip().isdecimal() for part in parts):
    raise errors.ConfigError(
      'config', row, 'not a row (d, k, n) of Table 2', 'write it like configs/FILE.py:4,6,2'
    )
  config.model.width, config.model.tree_depth, config.model.num_blocks = map(int, parts)


def flatten(tree: Mapping[str, Any], prefix: str = '') -> Iterator[tuple[str, Any]]:
  """Yields (dotted path, value) of every leaf of a configuration or of its JSON form."""
  for key, value in tree.items():
    path = f'{prefix}{key}'
    if isinstance(value, Mapping | ml_collections.ConfigDict) and value:
      yield from flatten(value, f'{path}.')
    else:
      yield path, value


def suggestion(name: str) -> str:
  """Returns the remedy for an unknown field: the closest known one, or where they are listed."""
  leaves = {field.name.split('.')[-1]: field.name for field in FIELDS}
  close = difflib.get_close_matches(name, list(BY_NAME), n=1) or [
    leaves[leaf] for leaf in difflib.get_close_matches(name.split('.')[-1], list(leaves), n=1)
  ]
  return (
    f'did you mean config.{close[0]}?'
    if close
    else 'see bitnet_jax/config/fields.py for all fields'
  )
