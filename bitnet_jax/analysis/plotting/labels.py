"""Places labels beside the points of a scatter plot so that nothing overlaps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from matplotlib import axes, figure
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.transforms import Bbox

# Distances, in points, from a point to its label's nearest edge; from the second on, with a leader.
_DISTANCES = (3, 9, 14, 20, 28, 38, 50, 64)
_LEADER_FROM = 9
_ANGLES = 16


def settle(fig: figure.Figure) -> RendererAgg:
  """Lays a figure out, so that labels can be placed in its panels; what does it."""
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
  """Labels points.

  Args:
    renderer: of `settle`.
    panel: that the points are in.
    points: in data coordinates.
    texts: a label for each.
    marker: size of a point, in typographic points.
    fontsize: of the labels.

  Returns:
    How many labels found no free place and lie over something.
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
    box, distance = _free_box(x, y, size.width, size.height, taken, frame, half, pixels)
    failures += box is None
    box = box or Bbox([[x, y], [x + size.width, y + size.height]])
    taken.append(box)
    note.set_position(((box.x0 - x) / pixels, (box.y0 - y) / pixels))
    if distance >= _LEADER_FROM:
      _lead(panel, point, (x, y), box)
  return failures


def _free_box(
  x: float,
  y: float,
  width: float,
  height: float,
  taken: Sequence[Bbox],
  frame: Bbox,
  half: float,
  pixels: float,
) -> tuple[Bbox | None, float]:
  """The nearest free box for a label, and its distance in points."""
  for distance in _DISTANCES:
    for box in _around(x, y, width + 2, height + 1, half + distance * pixels):
      inside = frame.x0 < box.x0 and box.x1 < frame.x1 and frame.y0 < box.y0 and box.y1 < frame.y1
      if inside and not any(box.overlaps(other) for other in taken):
        return box, distance
  return None, 0.0


def _around(x: float, y: float, width: float, height: float, radius: float) -> Iterator[Bbox]:
  """Boxes whose nearest edge is about `radius` from a point, right, left, above, below first."""
  order = sorted(range(_ANGLES), key=lambda k: (k % (_ANGLES // 4) != 0, k % 2, k))
  for k in order:
    angle = 2 * math.pi * k / _ANGLES
    across, up = math.cos(angle), math.sin(angle)
    left = x + across * (radius + width / 2) - width / 2
    bottom = y + up * (radius + height / 2) - height / 2
    yield Bbox([[left, bottom], [left + width, bottom + height]])


def _lead(
  panel: axes.Axes, point: tuple[float, float], center: tuple[float, float], box: Bbox
) -> None:
  """A thin line from a point to the nearest edge of its label."""
  x = min(max(center[0], box.x0), box.x1)
  y = min(max(center[1], box.y0), box.y1)
  end = panel.transData.inverted().transform((x, y))
  panel.plot(*zip(point, end, strict=True), color='#777777', linewidth=0.7, zorder=1)
