"""Crops encoded images to pixels of one size, for training and evaluation.

Every crop is a pure function of the image and of the example's random bits (`example_random_bits`).

Departs: the recipe's resampling is fb.resnet.torch's `image.scale(..., 'bicubic')`, which does not
filter where it shrinks, has Catmull-Rom's kernel (a = -0.5) and aligns the outermost pixels.
Without `antialias` this module does not filter either, but uses OpenCV's kernel: a = -0.75, pixels
as areas. The JPEG decoder first shrinks images that are much larger than the crop, by averages.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import cv2
import numpy as np
from PIL import Image

from bitnet_jax.data.images import decode
from bitnet_jax.data.images.decode import EncodedImage

TRIES = 10
NUM_RANDOM_WORDS = 5 * TRIES
# Longer strips than any photograph are cut, so that no resized image takes much memory.
MAX_ASPECT = 32


@dataclasses.dataclass(frozen=True)
class Crop:
  """Turns an encoded image into pixels `[size, size, channels]`; the base of the three crops.

  Attributes:
    size: side of the result, in pixels.
    antialias: whether to filter where the image shrinks (Pillow's bicubic) or not (the recipe).
  """

  size: int
  antialias: bool = False
  views: ClassVar[int] = 1

  def __call__(
    self,
    encoded: bytes,
    channels: int,
    key: str,
    random_bits: np.ndarray | None = None,
    out: np.ndarray | None = None,
  ) -> np.ndarray:
    """Crops an encoded image.

    Args:
      encoded: bytes of a JPEG or PNG file.
      channels: 1 for gray, 3 for RGB.
      key: name of the image in an error.
      random_bits: `[NUM_RANDOM_WORDS]`, uint64; only a random crop uses them.
      out: uint8 array that the result is written to; None for a new array.

    Returns:
      uint8 `[size, size, channels]`, or `[views, size, size, channels]`; `out` if that was given.

    Raises:
      DataError: the image cannot be decoded.
    """
    image = EncodedImage(encoded, channels, key)
    if out is None:
      leading = (self.views,) if self.views > 1 else ()
      out = np.empty((*leading, self.size, self.size, channels), np.uint8)
    self._write(image, random_bits, out)
    return out

  def _write(self, image: EncodedImage, random_bits: np.ndarray | None, out: np.ndarray) -> None:
    raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class CenterCrop(Crop):
  """Resizes the shorter side and takes the center.

  Attributes:
    resize: shorter side before the crop, in pixels; 0 for `size` itself, filtered whatever
      `antialias` says.
  """

  resize: int = 0

  def _write(self, image: EncodedImage, random_bits: np.ndarray | None, out: np.ndarray) -> None:
    if not self.resize:
      out[...] = decode.fit(image.pixels()[0], self.size)
    else:
      resized = resize_shorter_side(image, self.resize, self.antialias)
      out[...] = five_crops(resized, self.size)[0]


@dataclasses.dataclass(frozen=True)
class FiveCrop(Crop):
  """Resizes the shorter side and takes the center and the four corners, `[5, size, size, c]`.

  Attributes:
    resize: shorter side before the crops, in pixels.
  """

  resize: int = 0
  views: ClassVar[int] = 5

  def _write(self, image: EncodedImage, random_bits: np.ndarray | None, out: np.ndarray) -> None:
    resized = resize_shorter_side(image, self.resize, self.antialias)
    out[...] = np.stack(five_crops(resized, self.size))


@dataclasses.dataclass(frozen=True)
class RandomResizedCrop(Crop):
  """Takes a part of random area and aspect ratio and resizes it (`random_area_box`).

  Attributes:
    area: smallest and largest share of the image's area.
    aspect: smallest and largest width / height.
  """

  area: tuple[float, float] = (0.08, 1.0)
  aspect: tuple[float, float] = (3 / 4, 4 / 3)

  def _write(self, image: EncodedImage, random_bits: np.ndarray | None, out: np.ndarray) -> None:
    assert random_bits is not None
    size = self.size
    box = random_area_box(
      image.height, image.width, random_bits, area=self.area, aspect=self.aspect
    )
    if box is None:
      out[...] = five_crops(resize_shorter_side(image, size, self.antialias), size)[0]
      return
    top, left, height, width = box
    pixels, factor = image.pixels(min(1.0, max(size / height, size / width)))
    # Rows and columns of the shrunken image, to the nearest pixel; at least one, and within it.
    first_row = min(round(top / factor), pixels.shape[0] - 1)
    first_column = min(round(left / factor), pixels.shape[1] - 1)
    last_row = max(round((top + height) / factor), first_row + 1)
    last_column = max(round((left + width) / factor), first_column + 1)
    part = pixels[first_row:last_row, first_column:last_column]
    if self.antialias or out.shape[2] == 1:
      out[...] = resize(part, size, size, antialias=self.antialias)
    else:  # Most images take this way, which copies nothing.
      cv2.resize(part, (size, size), dst=out, interpolation=cv2.INTER_CUBIC)


def example_random_bits(seed: int, step: int, position: int) -> np.ndarray:
  """Returns the random numbers of an example, the same in all versions of NumPy.

  Args:
    seed: seed of the run.
    step: number of the step, counted from 0.
    position: position of the example in the global batch.

  Returns:
    uint64 `[NUM_RANDOM_WORDS]`.
  """
  sequence = np.random.SeedSequence(entropy=seed, spawn_key=(step, position))
  return np.random.Philox(sequence).random_raw(NUM_RANDOM_WORDS)


def random_area_box(
  height: int,
  width: int,
  random_bits: np.ndarray,
  *,
  area: tuple[float, float],
  aspect: tuple[float, float],
) -> tuple[int, int, int, int] | None:
  """Draws a random part of an image: ten tries of a random area and a random shape.

  Args:
    height: height of the image, in pixels.
    width: width of the image, in pixels.
    random_bits: uint64 `[NUM_RANDOM_WORDS]`.
    area: smallest and largest share of the image's area.
    aspect: smallest and largest ratio of the sides.

  Returns:
    (top, left, height, width), or None if no try lies within the image.

  Source:
    Section 4.2; fb.resnet.torch, datasets/transforms.lua, RandomSizedCrop.
  """
  uniforms = (random_bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
  for share, shape, turn, down, across in uniforms.reshape(TRIES, 5).tolist():
    target = (area[0] + (area[1] - area[0]) * share) * height * width
    ratio = aspect[0] + (aspect[1] - aspect[0]) * shape
    columns = math.floor(math.sqrt(target * ratio) + 0.5)
    rows = math.floor(math.sqrt(target / ratio) + 0.5)
    if turn < 0.5:
      rows, columns = columns, rows
    if 0 < rows <= height and 0 < columns <= width:
      top, left = int(down * (height - rows + 1)), int(across * (width - columns + 1))
      return top, left, rows, columns
  return None


def resize_shorter_side(image: EncodedImage, size: int, antialias: bool) -> np.ndarray:
  """Resizes an image so that its shorter side has `size` pixels, the longer one in proportion."""
  short = min(image.height, image.width)
  pixels, _ = image.pixels(min(1.0, size / short))
  height, width = (min(side, short * MAX_ASPECT) for side in (image.height, image.width))
  if (height, width) != (image.height, image.width):
    rows, columns = pixels.shape[:2]
    side = min(rows, columns) * MAX_ASPECT
    top, left = max(0, rows - side) // 2, max(0, columns - side) // 2
    pixels = pixels[top : top + side, left : left + side]
  return resize(pixels, size * height // short, size * width // short, antialias=antialias)


def five_crops(image: np.ndarray, size: int) -> list[np.ndarray]:
  """Returns square crops: the center, then top left and right, bottom left and right."""
  down, across = image.shape[0] - size, image.shape[1] - size
  places = (((down + 1) // 2, (across + 1) // 2), (0, 0), (0, across), (down, 0), (down, across))
  return [image[top : top + size, left : left + size] for top, left in places]


def resize(image: np.ndarray, height: int, width: int, *, antialias: bool) -> np.ndarray:
  """Resizes an image with a bicubic kernel.

  Args:
    image: uint8 `[rows, columns, channels]`.
    height: height of the result, in pixels.
    width: width of the result, in pixels.
    antialias: whether the kernel widens where the image shrinks.

  Returns:
    uint8 `[height, width, channels]`.
  """
  rows, columns, channels = image.shape
  if (rows, columns) == (height, width):
    return image
  if not antialias:
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_CUBIC)
  else:
    pillow = Image.fromarray(image[..., 0] if channels == 1 else image)
    resized = np.asarray(pillow.resize((width, height), Image.Resampling.BICUBIC))
  return resized.reshape(height, width, channels)
