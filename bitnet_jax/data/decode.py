"""From the bytes of a JPEG or PNG file to pixels, on the host."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, ImageOps

from bitnet_jax import errors

MAX_PIXELS = 89_478_485  # Pillow's own threshold: 256 MB of RGB.
_ORIENTATION = 0x0112  # The EXIF tag.

# Above MAX_PIXELS we raise; Pillow's warning would be a second line before ours.
warnings.filterwarnings('ignore', category=Image.DecompressionBombWarning)


def decode(encoded: bytes, channels: int, key: str) -> np.ndarray:
  """Decodes an image, whatever its mode, to grey or RGB.

  - Transparency is composited on white, the page that drawings with a
    transparent background are made for: black strokes stay visible.
  - 16 bits a channel are scaled to 8 (grey: rounded; colour: the high byte).
  - CMYK and YCCK become RGB by Pillow's formula; colour profiles are ignored.
  - Grey from colour is 0.299 R + 0.587 G + 0.114 B.
  - The orientation in the EXIF data is applied, so that photos of a phone stand
    upright. (Torch's and TensorFlow's decoders do not.)

  Args:
    encoded: the file's bytes; its contents tell JPEG or PNG, not its name.
    channels: 1 for grey, 3 for RGB.
    key: names the image in an error.

  Returns:
    uint8 `[height, width, channels]`.

  Raises:
    DataError: neither JPEG nor PNG, damaged, cut short, or too large to decode.
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
  if image.mode.startswith('I'):  # 16-bit grey; Pillow's own conversion clips at 255.
    wide = np.asarray(image).astype(np.int64)
    image = Image.fromarray(((wide * 255 + 32767) // 65535).astype(np.uint8))
  if image.has_transparency_data:
    image = image.convert('RGBA')
    page = Image.new('RGBA', image.size, (255, 255, 255, 255))
    image = Image.alpha_composite(page, image).convert('RGB')
  mode = 'L' if channels == 1 else 'RGB'
  if image.mode != mode:
    image = image.convert('RGB').convert(mode) if image.mode == 'CMYK' else image.convert(mode)
  # A copy: what Pillow exports is read-only.
  return np.array(image, np.uint8).reshape(image.height, image.width, channels)


def fit(image: np.ndarray, size: int) -> np.ndarray:
  """Resizes the shorter side to `size` and crops the centre square.

  Bicubic, with the kernel widened where it shrinks (antialias). Both steps in
  one: only the pixels that the square needs are computed, and the square is
  centred to a fraction of a pixel.

  Args:
    image: uint8 `[height, width, channels]`.
    size: side of the result, in pixels.

  Returns:
    uint8 `[size, size, channels]`; `image` itself if it has that shape already.
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
