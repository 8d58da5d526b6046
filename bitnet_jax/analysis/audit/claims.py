"""Checks the paper's sentences that compare sizes against the counted networks, for the audit."""

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
  wider,
)


class Claim(NamedTuple):
  """States the size of one network as a share of another's.

  Attributes:
    section: section of the paper; '' where the paper does not state the share.
    words: the claim, in the paper's words or close to them.
    network: the network whose size is stated.
    baseline: the network that it is compared with.
    percent: the stated share; None where the paper states none.
    quantity: 'parameters' or 'multiply_adds'.
  """

  section: str
  words: str
  network: Network
  baseline: Network
  percent: int | None
  quantity: str = 'parameters'


_WRN4, _WRN10, _WRN12 = wide_resnet(4, 2, 6), wide_resnet(10, 2, 2), wide_resnet(12, 2, 4)

CLAIMS = (
  Claim('4.1', 'parameter size is only 30 % of the baseline', bitnet(4, 4, 3), _WRN4, 30),
  Claim('4.1', 'parameter size is only 41 % of the baseline', bitnet(4, 3, 4), _WRN4, 41),
  Claim('4.1', 'only 19 % of the baseline', bitnet(4, 6, 2), _WRN4, 19),
  Claim('4.1', 'approximately 56 % of the baseline', bitnet(10, 2, 2), _WRN10, 56),
  Claim('4.1', 'only 23 % of the baseline', bitnet(10, 4, 1), _WRN10, 23),
  Claim('4.1', 'only 38 % of the baseline', bitnet(10, 3, 2), wide_resnet(10, 2, 3), 38),
  Claim('abstract', 'only 28 % of the baseline', bitnet(12, 4, 2), _WRN12, 28),
  Claim('4.2', 'same parameter size as ResNet-34 B', BITNET34, RESNET34, 100),
  Claim('4.2', 'approximately 50 % of ResNet-34 B', BITNET26, RESNET34, 50),
  Claim('4.2', 'same number of parameters as ResNet-18 B', BITNET26, RESNET18, 100),
  Claim('4.2', 'only 50 % of ResNet-18 width x3', BITNET34, wider(RESNET18, 2.0), 50),
  Claim('4.3', 'a 33 % increase from k=1 to k=2', bitnet(12, 2, 2), bitnet(12, 1, 2), 133),
  Claim('', 'cost of BitNet-34', BITNET34, RESNET34, None, 'multiply_adds'),
  Claim('', 'cost of BitNet-26', BITNET26, RESNET18, None, 'multiply_adds'),
)


def check() -> list[dict[str, Any]]:
  """Returns each claim, as a JSON object, with the percentage of the networks as trained."""
  return [_check(claim) for claim in CLAIMS]


def _check(claim: Claim) -> dict[str, Any]:
  size, baseline = (
    counts.count(network, claim.quantity, network.trained)
    for network in (claim.network, claim.baseline)
  )
  percent = 100 * size / baseline
  return {
    'section': claim.section,
    'claim': claim.words,
    'network': str(claim.network),
    'baseline': str(claim.baseline),
    'quantity': claim.quantity,
    'paper_percent': None if claim.percent is None else float(claim.percent),
    'ours_percent': round(percent, 2),
    'agrees': None if claim.percent is None else round(percent) == claim.percent,
  }


def sentence(claim: dict[str, Any]) -> str:
  """Returns the outcome of a claim of `check` in words."""
  pair = f'{claim["network"]} against {claim["baseline"]}'
  unit = claim['quantity'].replace('_', '-')
  ours = f'{claim["ours_percent"]:.1f} % of its {unit}'
  if claim['agrees'] is None:
    return f'Not in the paper: {pair} has {ours}.'
  verdict = 'agrees' if claim['agrees'] else 'differs'
  where = 'Abstract' if claim['section'] == 'abstract' else f'Section {claim["section"]}'
  return f'{where}, "{claim["claim"]}": {pair} has {ours}; {verdict}.'
