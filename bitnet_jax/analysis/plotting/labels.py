"""Places labels beside the points of a scatter plot so that nothing overlaps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from matplotlib import axes, figure
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.transforms import Bbox

# Distances in typographic points from a point's marker to its label's nearest edge.
_DISTANCES = (3, 9, 14, 20, 28, 38, 50, 64)
_LEADER_FROM = 9  # Labels at least so far away get a line to their point.
_ANGLES = 16


def settle(fig: figure.Figure) -> RendererAgg:
  """Lays a figure out, so that labels can be placed in its panels, and returns the renderer."""
  canvas = FigureCanvasAgg(fig)
  canvas.draw()
  return canvas.get_renderer()


def place(
  renderer: RendererAgg,
  panel: axes.Axes,
  points: Sequence[tuple[float, float]],
  texts: Sequence[str],
  *,
  marker: float = 6.0,
  fontsize: float = 7.5,
) -> int:
  """Labels the points of a panel.

  Args:
    renderer: the figure's renderer, of `settle`.
    panel: the panel that shows the points.
    points: the points, in data coordinates.
    texts: a label for each point.
    marker: size of a point, in typographic points.
    fontsize: size of the labels, in typographic points.

  Returns:
    The number of labels that have no free place and so lie over something.
  """
  pixels = renderer.points_to_pixels(1.0)
  half = marker * pixels / 2
  centers = [panel.transData.transform(point) for point in points]
  taken = [Bbox([[x - half, y - half], [x + half, y + half]]) for x, y in centers]
  frame = panel.get_window_extent(renderer)
  failures = 0
  for (x, y), point, text in zip(centers, points, texts, strict=True):
    note = panel.annotate(text, point, (0, 0), textcoords='offset points', fontsize=fontsize)
    note.set_in_layout(False)
    size = note.get_window_extent(renderer)
    free = (
      (candidate, distance)
      for candidate, distance in _candidates(x, y, size, half, pixels)
      if _contains(frame, candidate) and not any(candidate.overlaps(other) for other in taken)
    )
    box, distance = next(free, (None, 0))
    failures += box is None
    box = box or Bbox([[x, y], [x + size.width, y + size.height]])
    taken.append(box)
    note.set_position(((box.x0 - x) / pixels, (box.y0 - y) / pixels))
    if distance >= _LEADER_FROM:
      nearest = min(max(x, box.x0), box.x1), min(max(y, box.y0), box.y1)
      end = panel.transData.inverted().transform(nearest)
      panel.plot(*zip(point, end, strict=True), color='#777777', linewidth=0.7, zorder=1)
  return failures


def _contains(frame: Bbox, box: Bbox) -> bool:
  return frame.x0 < box.x0 and box.x1 < frame.x1 and frame.y0 < box.y0 and box.y1 < frame.y1


def _candidates(
  x: float, y: float, size: Bbox, half: float, pixels: float
) -> Iterator[tuple[Bbox, int]]:
  """Yields boxes for a label around a point, each with its distance, the nearest first.

  At each distance the boxes to the right, left, above and below come first.
  """
  width, height = size.width + 2, size.height + 1
  order = sorted(range(_ANGLES), key=lambda k: (k % (_ANGLES // 4) != 0, k % 2, k))
  for distance in _DISTANCES:
    radius = half + distance * pixels
    for k in order:
      angle = 2 * math.pi * k / _ANGLES
      left = x + math.cos(angle) * (radius + width / 2) - width / 2
      bottom = y + math.sin(angle) * (radius + height / 2) - height / 2
      yield Bbox([[left, bottom], [left + width, bottom + height]]), distance
