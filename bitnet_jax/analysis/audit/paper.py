"""Lists the paper's tables as printed, and the counts that this implementation has to give.

`ROWS` holds Tables 2 to 7, a `Row` for each line. Numbers are kept as printed, because the number
of digits says how exactly a count has to agree. `GOLDEN` holds the counts of this implementation,
worked out from the definitions of the networks; the audit fails where the modules that train give
another one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from bitnet_jax.analysis.audit.networks import (
  BITNET26,
  BITNET34,
  PLAINNET,
  RESNET18,
  RESNET34,
  Convention,
  Network,
  bitnet,
  wide_resnet,
  wider,
)

MILLION, BILLION = 10**6, 10**9

# Names of the cells that hold a row's errors.
CIFAR10, CIFAR100, CIFAR100_TRAIN = 'cifar10', 'cifar100', 'cifar100_train'
SINGLE_CROP, TEN_CROP = 'imagenet2012', 'imagenet2012_ten_crop'


@dataclasses.dataclass(frozen=True)
class Row:
  """Holds one line of a table as printed.

  Attributes:
    key: `tableN/NETWORK`, or `tableN/NAME` of a network that is not built here.
    label: name of the network in print.
    depth: depth in layers; 0 where none is printed.
    parameters: millions of parameters; '' where none are printed.
    multiply_adds: billions of multiply-adds ("FLOP"); '' where none are printed.
    errors: errors in percent, by cell.
    network: the network of the numbers; None where the network is not built here.
    literal: the network that the label names, where the numbers belong to another one.
    output_sizes: sides of the feature maps in pixels (Table 3).
  """

  key: str
  label: str
  depth: int = 0
  parameters: str = ''
  multiply_adds: str = ''
  errors: Mapping[str, str] = dataclasses.field(default_factory=dict)
  network: Network | None = None
  literal: Network | None = None
  output_sizes: tuple[int, ...] = ()

  @property
  def table(self) -> int:
    """Returns the number of the table."""
    return int(self.key[len('table')])


@dataclasses.dataclass(frozen=True)
class Golden:
  """Requires a count of this implementation.

  Attributes:
    network: the network that is counted.
    quantity: 'depth', 'parameters' or 'multiply_adds'.
    digits: the required number of units, rounded where it has fewer digits than the count.
    unit: 1, `MILLION` or `BILLION`.
    convention: how the network is counted.
  """

  network: Network
  quantity: str
  digits: str
  unit: int
  convention: Convention


# Tables 2 and 7: network, depth, millions, billions, CIFAR-10, CIFAR-100, CIFAR-100 training error.
_CIFAR_ROWS = (
  (wide_resnet(4, 2, 6), 38, '8.9', '1.34', '4.97', '22.89', '0.018'),
  (bitnet(4, 3, 4), 38, '3.7', '0.53', '4.82', '22.19', '0.018'),
  (bitnet(4, 4, 3), 38, '2.7', '0.39', '4.65', '22.60', '0.022'),
  (bitnet(4, 2, 6), 38, '5.4', '0.78', '5.31', '23.22', '0.026'),
  (bitnet(4, 6, 2), 38, '1.7', '0.24', '4.77', '23.87', '0.028'),
  (wide_resnet(10, 2, 2), 14, '17.1', '2.64', '4.56', '21.59', '0.018'),
  (bitnet(10, 2, 2), 14, '9.6', '1.32', '4.17', '20.48', '0.018'),
  (bitnet(10, 4, 1), 14, '3.9', '0.49', '4.97', '23.88', '0.020'),
  (wide_resnet(10, 2, 3), 20, '26.8', '4.06', '4.44', '20.75', '0.018'),
  (bitnet(10, 2, 3), 20, '15.6', '2.21', '3.78', '19.29', '0.018'),
  (bitnet(10, 3, 2), 20, '10.2', '1.41', '3.81', '19.37', '0.018'),
  (wide_resnet(12, 2, 4), 26, '52.5', '7.87', '4.33', '20.43', '0.018'),
  (bitnet(12, 2, 4), 26, '31.2', '4.45', '4.07', '19.06', '0.018'),
  (bitnet(12, 4, 2), 26, '14.9', '2.06', '4.11', '19.22', '0.018'),
)
# Table 2, quoted from other papers: key, label, depth, millions, CIFAR-10, CIFAR-100.
_QUOTED_ROWS = (
  ('nin', 'NIN', 0, '', '8.81', '35.67'),
  ('elu', 'ELU', 0, '', '6.55', '24.28'),
  ('dsn', 'DSN', 0, '', '7.97', '34.57'),
  ('allcnn', 'AllCNN', 0, '', '7.25', '33.71'),
  ('resnet', 'ResNet', 1202, '10.2', '4.91', ''),
  ('preact_resnet', 'preact-ResNet', 1001, '10.2', '4.62', '22.71'),
  ('stochastic_depth', 'Stochastic Depth ResNet', 110, '1.7', '5.25', '24.98'),
  ('fractalnet', 'FractalNet', 40, '22.9', '5.24', '22.49'),
)
# Table 4: network, network that the label names, label, single crop, ten crops, millions.
_IMAGENET_ROWS = (
  (RESNET18, None, 'ResNet-18 B', '30.43', '28.22', '13.1'),
  (wider(RESNET18, 1.5), wider(RESNET18, 2.0), 'ResNet-18 B width x2', '27.06', '', '25.9'),
  (wider(RESNET18, 2.0), wider(RESNET18, 3.0), 'ResNet-18 B width x3', '25.58', '', '45.6'),
  (None, None, 'FractalNet-34', '', '24.12', ''),
  (RESNET34, None, 'ResNet-34 B', '26.73', '24.76', '23.2'),
  (wider(RESNET34, 1.5), wider(RESNET34, 2.0), 'ResNet-34 B width x2', '24.5', '', '48.6'),
  (BITNET26, None, 'BitNet-26', '27.74', '25.83', '12.8'),
  (BITNET34, None, 'BitNet-34', '25.46', '23.77', '23.0'),
)
# Table 5: d, n, then millions, CIFAR-10 and CIFAR-100 for k = 1 to 6.
_DEPTH_ROWS = (
  (4, 4, '2.7 4.98 23.54, 3.5 4.68 22.72, 3.7 4.82 22.19, '
         '3.7 4.69 22.65, 3.7 4.69 22.86, 3.7 4.77 22.69'),
  (12, 2, '10.3 6.02 23.80, 13.8 4.02 19.86, 14.7 3.98 18.97, '
          '14.9 4.11 19.22, 15.0 4.09 18.95, 15.0 4.19 19.51'),
)  # fmt: skip
# Table 6, the networks of Figure 2 in the order of its legend: label, depth, millions, CIFAR-100.
FIGURE2_ROWS = (
  (wide_resnet(4, 2, 6), 'wide resnet-38', 38, '8.9', '22.89'),
  (PLAINNET, 'plainnet-38', 38, '8.9', '29.13'),
  (bitnet(4, 1, 2), 'b(4,1,2)-8', 8, '1.2', '29.19'),
  (bitnet(4, 2, 2), 'b(4,2,2)-14', 14, '1.5', '25.45'),
  (bitnet(4, 4, 2), 'b(4,4,2)-26', 26, '1.7', '22.72'),
  (bitnet(4, 6, 2), 'b(4,6,2)-38', 38, '1.7', '23.87'),
  (bitnet(4, 2, 6), 'b(4,2,6)-38', 38, '5.4', '23.22'),
  (bitnet(4, 3, 4), 'b(4,3,4)-38', 38, '3.7', '22.19'),
  (bitnet(4, 4, 3), 'b(4,4,3)-38', 38, '2.7', '22.60'),
)


def _label(network: Network) -> str:
  family = 'BitNet' if network.name == 'bitnet' else 'Wide ResNet'
  return f'{family} (d={network.width},k={network.tree_depth},n={network.num_blocks})'


def _errors(**cells: str) -> dict[str, str]:
  return {cell: digits for cell, digits in cells.items() if digits}


def _row(
  table: int, network: Network, label: str, *figures: Any, output_sizes: tuple[int, ...] = ()
) -> Row:
  """Makes the row of a network that is built here, whose figures are those of `Row`, in order."""
  row = Row(f'table{table}/{network}', label or _label(network), *figures)
  return dataclasses.replace(row, network=network, output_sizes=output_sizes)


def _rows() -> Iterator[Row]:
  for name, label, depth, millions, c10, c100 in _QUOTED_ROWS:
    yield Row(f'table2/{name}', label, depth, millions, '', _errors(cifar10=c10, cifar100=c100))
  for network, depth, millions, billions, c10, c100, _ in _CIFAR_ROWS:
    yield _row(2, network, '', depth, millions, billions, _errors(cifar10=c10, cifar100=c100))
  for network, label, depth, millions, billions in (
    (BITNET26, 'BitNet-26', 26, '12.79', '2.8'),
    (BITNET34, 'BitNet-34', 34, '22.99', '7.8'),
  ):
    yield _row(3, network, label, depth, millions, billions, {}, output_sizes=(112, 56, 28, 14, 7))
  for built, literal, label, single, ten, millions in _IMAGENET_ROWS:
    errors = _errors(imagenet2012=single, imagenet2012_ten_crop=ten)
    key = f'table4/{built or "fractalnet34"}'
    yield Row(key, label, 0, millions, '', errors, built, literal)
  for width, num_blocks, text in _DEPTH_ROWS:
    for tree_depth, cell in enumerate(text.split(', '), start=1):
      millions, c10, c100 = cell.split()
      errors = _errors(cifar10=c10, cifar100=c100)
      yield _row(5, bitnet(width, tree_depth, num_blocks), '', 0, millions, '', errors)
  for network, label, depth, millions, c100 in FIGURE2_ROWS:
    yield _row(6, network, label, depth, millions, '', _errors(cifar100=c100))
  for network, _, millions, _, _, c100, train in _CIFAR_ROWS:
    errors = _errors(cifar100=c100, cifar100_train=train)
    yield _row(7, network, '', 0, millions, '', errors)


ROWS = tuple(_rows())

# Network as trained: depth, parameters, billions of multiply-adds.
_COUNTS = {
  wide_resnet(4, 2, 6): (38, '8949210', '1.299'),
  bitnet(4, 3, 4): (38, '3677274', '0.529'),
  bitnet(4, 4, 3): (38, '2696266', '0.386'),
  bitnet(4, 2, 6): (38, '5420890', '0.784'),
  bitnet(4, 6, 2): (38, '1674154', '0.236'),
  wide_resnet(10, 2, 2): (14, '17116634', '2.412'),
  bitnet(10, 2, 2): (14, '9598234', '1.322'),
  bitnet(10, 4, 1): (14, '3925714', '0.492'),
  wide_resnet(10, 2, 3): (20, '26797914', '3.828'),
  bitnet(10, 2, 3): (20, '15649594', '2.206'),
  bitnet(10, 3, 2): (20, '10204154', '1.410'),
  wide_resnet(12, 2, 4): (26, '52517850', '7.544'),
  bitnet(12, 2, 4): (26, '31238874', '4.445'),
  bitnet(12, 4, 2): (26, '14903226', '2.057'),
  PLAINNET: (38, '8907226', ''),
  bitnet(4, 1, 2): (8, '1156826', ''),
  bitnet(4, 2, 2): (14, '1544794', ''),
  bitnet(4, 4, 2): (26, '1666426', ''),
  bitnet(4, 1, 4): (14, '2706906', ''),
  bitnet(4, 2, 4): (26, '3482842', ''),
  bitnet(4, 4, 4): (50, '3726106', ''),
  bitnet(4, 5, 4): (62, '3738426', ''),
  bitnet(4, 6, 4): (74, '3741562', ''),
  bitnet(12, 1, 2): (8, '10326234', ''),
  bitnet(12, 2, 2): (14, '13812570', ''),
  bitnet(12, 3, 2): (20, '14684826', ''),
  bitnet(12, 5, 2): (32, '14957994', ''),
  bitnet(12, 6, 2): (38, '14971770', ''),
  BITNET26: (26, '12798920', '2.821'),
  BITNET34: (34, '23008104', '7.779'),
  RESNET18: (18, '11689512', '1.81'),
  RESNET34: (34, '21797672', '3.66'),
}
# Counts under other conventions: network, quantity, digits, unit, batch norm counted, projection.
_OTHER_COUNTS = (
  (BITNET26, 'parameters', '12789160', 1, False, 1),
  (BITNET34, 'parameters', '22993576', 1, False, 1),
  (RESNET18, 'parameters', '13065768', 1, True, 3),
  (RESNET34, 'parameters', '23173928', 1, True, 3),
  (wider(RESNET18, 1.5), 'parameters', '25.9', MILLION, True, 1),
  (wider(RESNET18, 2.0), 'parameters', '45.6', MILLION, True, 1),
  (wider(RESNET34, 1.5), 'parameters', '48.6', MILLION, True, 1),
  (wide_resnet(4, 2, 6), 'multiply_adds', '1.3405', BILLION, True, 3),
  (wide_resnet(10, 2, 2), 'multiply_adds', '2.6429', BILLION, True, 3),
  (wide_resnet(10, 2, 3), 'multiply_adds', '4.0584', BILLION, True, 3),
  (wide_resnet(12, 2, 4), 'multiply_adds', '7.8711', BILLION, True, 3),
)


def _golden() -> Iterator[Golden]:
  for network, (depth, parameters, billions) in _COUNTS.items():
    yield Golden(network, 'depth', str(depth), 1, network.trained)
    yield Golden(network, 'parameters', parameters, 1, network.trained)
    if billions:
      yield Golden(network, 'multiply_adds', billions, BILLION, network.trained)
  for network, quantity, digits, unit, batch_norm, projection in _OTHER_COUNTS:
    convention = Convention(network.classes, batch_norm, projection)
    yield Golden(network, quantity, digits, unit, convention)


GOLDEN = tuple(_golden())
