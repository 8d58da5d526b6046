"""The paper's sentences that compare sizes, beside the ratios that its networks have."""

from __future__ import annotations

from typing import Any, NamedTuple

from bitnet_jax.analysis.audit import counts
from bitnet_jax.analysis.audit.networks import (
  BITNET26,
  BITNET34,
  RESNET18,
  RESNET34,
  Network,
  bitnet,
  wide_resnet,
)


class Claim(NamedTuple):
  """A share of one network's size that the paper states.

  Attributes:
    section: where.
    words: the claim, in the paper's words or close to them.
    network: whose size.
    baseline: is compared with this one's.
    percent: stated; '' where the paper states none.
    quantity: 'parameters' or 'multiply_adds'.
  """

  section: str
  words: str
  network: Network
  baseline: Network
  percent: str
  quantity: str = 'parameters'


_WRN4, _WRN10 = wide_resnet(4, 2, 6), wide_resnet(10, 2, 2)
_WRN10_3, _WRN12 = wide_resnet(10, 2, 3), wide_resnet(12, 2, 4)
_RESNET18_X3 = Network('resnet18b', width_factor=2.0)

CLAIMS = (
  Claim('4.1', 'parameter size is only 30 % of the baseline', bitnet(4, 4, 3), _WRN4, '30'),
  Claim('4.1', 'parameter size is only 41 % of the baseline', bitnet(4, 3, 4), _WRN4, '41'),
  Claim('4.1', 'only 19 % of the baseline', bitnet(4, 6, 2), _WRN4, '19'),
  Claim('4.1', 'approximately 56 % of the baseline', bitnet(10, 2, 2), _WRN10, '56'),
  Claim('4.1', 'only 23 % of the baseline', bitnet(10, 4, 1), _WRN10, '23'),
  Claim('4.1', 'only 38 % of the baseline', bitnet(10, 3, 2), _WRN10_3, '38'),
  Claim('abstract', 'only 28 % of the baseline', bitnet(12, 4, 2), _WRN12, '28'),
  Claim('4.2', 'same parameter size as ResNet-34 B', BITNET34, RESNET34, '100'),
  Claim('4.2', 'approximately 50 % of ResNet-34 B', BITNET26, RESNET34, '50'),
  Claim('4.2', 'same number of parameters as ResNet-18 B', BITNET26, RESNET18, '100'),
  Claim('4.2', 'only 50 % of ResNet-18 width x3', BITNET34, _RESNET18_X3, '50'),
  Claim(
    '4.3',
    'a 33 % increase from k=1 to k=2',
    bitnet(12, 2, 2),
    bitnet(12, 1, 2),
    '133',
  ),
  Claim('', 'cost of BitNet-34', BITNET34, RESNET34, '', 'multiply_adds'),
  Claim('', 'cost of BitNet-26', BITNET26, RESNET18, '', 'multiply_adds'),
)


def check() -> list[dict[str, Any]]:
  """Each claim with the percentage that the networks as trained have."""
  found = []
  for claim in CLAIMS:
    shares = [
      counts.count(network, claim.quantity, network.trained)
      for network in (claim.network, claim.baseline)
    ]
    percent = 100 * shares[0] / shares[1]
    found.append(
      {
        'section': claim.section,
        'claim': claim.words,
        'network': str(claim.network),
        'baseline': str(claim.baseline),
        'quantity': claim.quantity,
        'paper_percent': float(claim.percent) if claim.percent else None,
        'ours_percent': round(percent, 2),
        'agrees': round(percent) == int(claim.percent) if claim.percent else None,
      }
    )
  return found


def sentence(claim: dict[str, Any]) -> str:
  """A claim's outcome in words."""
  pair = f'{claim["network"]} against {claim["baseline"]}'
  unit = claim['quantity'].replace('_', '-')
  ours = f'{claim["ours_percent"]:.1f} % of its {unit}'
  if claim['agrees'] is None:
    return f'Not in the paper: {pair} has {ours}.'
  verdict = 'agrees' if claim['agrees'] else 'differs'
  return f'Section {claim["section"]}, "{claim["claim"]}": {pair} has {ours}; {verdict}.'.replace(
    'Section abstract', 'Abstract'
  )
