"""Decodes JPEG and PNG files to pixels on the host, for the crops and the resident pipeline."""

from __future__ import annotations

import io
import math
import warnings

import cv2
import numpy as np
import simplejpeg
from PIL import Image, ImageOps

from bitnet_jax import errors

MAX_PIXELS = 89_478_485  # Pillow's own threshold: 256 MB of RGB.
_ORIENTATION = 0x0112  # The EXIF tag.
PLAIN_JPEG = ('YCbCr', 'RGB', 'Gray')  # libjpeg turns these into RGB by itself.
_FAST_FACTORS = (8, 4, 2, 1)  # The decoder has other factors, which take longer than no factor.
_APP1, _SCAN = 0xE1, 0xDA  # Second bytes of JPEG markers.

cv2.setNumThreads(1)  # Worker processes share the images; one image is too small to be shared.

# Above MAX_PIXELS `decode` raises; Pillow's warning would be a second line before the error.
warnings.filterwarnings('ignore', category=Image.DecompressionBombWarning)


def decode(encoded: bytes, channels: int, key: str) -> np.ndarray:
  """Decodes an image, whatever its mode, to gray or RGB.

  - Transparency is composited on white, the page that drawings with a
    transparent background are made for, so black strokes stay visible.
  - 16 bits a channel are scaled to 8 (gray: rounded; color: the high byte).
  - CMYK and YCCK become RGB by Pillow's formula; color profiles are ignored.
  - Gray from color is 0.299 R + 0.587 G + 0.114 B.
  - The orientation in the EXIF data is applied, so that photos of a phone stand
    upright. (Torch's and TensorFlow's decoders do not.)

  Args:
    encoded: bytes of the file; they tell JPEG or PNG, not the file's name.
    channels: 1 for gray, 3 for RGB.
    key: name of the image in an error.

  Returns:
    uint8 `[height, width, channels]`.

  Raises:
    DataError: the file is neither JPEG nor PNG, is damaged or cut short, or has over `MAX_PIXELS`.
    ValueError: `channels` is neither 1 nor 3.
  """
  if channels not in (1, 3):
    raise ValueError(f'channels={channels}: must be 1 or 3')
  try:
    with Image.open(io.BytesIO(encoded), formats=('JPEG', 'PNG')) as image:
      if image.width * image.height > MAX_PIXELS:
        raise Image.DecompressionBombError
      return _to_pixels(image, channels)
  except Image.DecompressionBombError as error:
    problem = f'more than {MAX_PIXELS} pixels'
    raise errors.DataError('image', key, problem, 'make it smaller or remove it') from error
  except Image.UnidentifiedImageError as error:
    problem = 'neither a JPEG nor a PNG file'
    raise errors.DataError('image', key, problem, 'convert or remove it') from error
  except MemoryError:
    raise
  except Exception as error:  # Pillow raises a dozen kinds on damaged files.
    problem = f'damaged ({error})'
    raise errors.DataError('image', key, problem, 'restore or remove it') from error


def _to_pixels(image: Image.Image, channels: int) -> np.ndarray:
  if image.getexif().get(_ORIENTATION, 1) != 1:
    image = ImageOps.exif_transpose(image)
  if image.mode.startswith('I'):  # 16-bit gray; Pillow's own conversion clips at 255.
    wide = np.asarray(image).astype(np.int64)
    image = Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))
  if image.has_transparency_data:
    image = image.convert('RGBA')
    page = Image.new('RGBA', image.size, (255, 255, 255, 255))
    image = Image.alpha_composite(page, image).convert('RGB')
  mode = 'L' if channels == 1 else 'RGB'
  if image.mode != mode:
    image = image.convert('RGB').convert(mode) if image.mode == 'CMYK' else image.convert(mode)
  # A copy: Pillow's arrays are read-only.
  return np.array(image, np.uint8).reshape(image.height, image.width, channels)


class EncodedImage:
  """Decodes an image after reading its size, at a smaller scale where the caller needs less.

  JPEG files of the usual kinds take a fast path: the pixels are those of `decode`, to one level of
  256, but where the caller needs far fewer pixels the decoder itself shrinks the image. `decode`
  handles all others at once.

  Attributes:
    height: height of the whole image, upright, in pixels.
    width: width of the whole image, upright, in pixels.
  """

  def __init__(self, encoded: bytes, channels: int, key: str):
    """Reads the size of the image.

    Args:
      encoded: bytes of the file.
      channels: 1 for gray, 3 for RGB.
      key: name of the image in an error.

    Raises:
      DataError: `decode` cannot decode the image.
    """
    self._encoded, self._channels, self._key = encoded, channels, key
    self._pixels: np.ndarray | None = None
    size = plain_jpeg_size(encoded) if channels == 3 else None
    if size is None:
      self._pixels = decode(encoded, channels, key)
      size = self._pixels.shape[:2]
    self.height, self.width = size

  def pixels(self, scale: float = 1.0) -> tuple[np.ndarray, int]:
    """Decodes the pixels.

    Args:
      scale: smallest share of the full height and width that the caller can use.

    Returns:
      uint8 `[height, width, channels]` of the image, shrunk (sizes rounded up) by the largest of
      1, 2, 4 and 8 that leaves this share, and that number.

    Raises:
      DataError: `decode` cannot decode the image.
    """
    if self._pixels is not None:
      return self._pixels, 1
    factor = next(f for f in _FAST_FACTORS if scale * f <= 1 or f == 1)
    height, width = math.ceil(self.height / factor), math.ceil(self.width / factor)
    try:
      # The decoder shrinks as far as these sizes allow.
      pixels = simplejpeg.decode_jpeg(self._encoded, 'RGB', min_height=height, min_width=width)
      return pixels, factor
    except ValueError:  # Damaged, but Pillow may still decode the image.
      return decode(self._encoded, self._channels, self._key), 1


def plain_jpeg_size(encoded: bytes) -> tuple[int, int] | None:
  """Returns height and width of an upright JPEG file that needs no conversion; else None."""
  if encoded[:2] != b'\xff\xd8':
    return None
  try:
    height, width, colorspace, _ = simplejpeg.decode_jpeg_header(encoded)
  except ValueError:
    return None
  if colorspace not in PLAIN_JPEG or height * width > MAX_PIXELS or _may_be_turned(encoded):
    return None
  return height, width


def _may_be_turned(encoded: bytes) -> bool:
  if not _has_metadata(encoded):
    return False
  try:
    with Image.open(io.BytesIO(encoded), formats=('JPEG',)) as image:
      return image.getexif().get(_ORIENTATION, 1) != 1
  except Exception:  # `decode` reports what is wrong.
    return True


def _has_metadata(encoded: bytes) -> bool:
  """Returns whether a JPEG file has an APP1 segment (EXIF or XMP) before its pixels."""
  start = 2
  while start + 4 <= len(encoded) and encoded[start] == 0xFF and encoded[start + 1] != _SCAN:
    if encoded[start + 1] == _APP1:
      return True
    start += 2 + int.from_bytes(encoded[start + 2 : start + 4])
  return False


def fit(image: np.ndarray, size: int) -> np.ndarray:
  """Resizes the shorter side to `size` and crops the center square.

  The kernel is bicubic and widens where the image shrinks (antialias). Only the pixels that the
  square needs are computed, and the square is centered to a fraction of a pixel.

  Args:
    image: uint8 `[height, width, channels]`.
    size: side of the result, in pixels.

  Returns:
    uint8 `[size, size, channels]`; `image` itself where the shapes agree.
  """
  height, width, channels = image.shape
  if (height, width) == (size, size):
    return image
  side = min(height, width)
  left, top = (width - side) / 2, (height - side) / 2
  resized = Image.fromarray(image[..., 0] if channels == 1 else image).resize(
    (size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side)
  )
  return np.array(resized, np.uint8).reshape(size, size, channels)
