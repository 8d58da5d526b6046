"""Tests of decoding and fitting: golden pixels of every kind of file."""

import io
import random
import struct
import zlib

import numpy as np
from absl.testing import absltest, parameterized
from PIL import Image

from bitnet_jax import errors
from bitnet_jax.data.images import decode
from tests.helpers.processes import run_program


def encode(image, kind='PNG', **options):
  file = io.BytesIO()
  image.save(file, kind, **options)
  return file.getvalue()


def one_pixel(mode, value):
  return encode(Image.new(mode, (1, 1), value))


def png(width, height, depth, color_type, rows):
  """A PNG written by hand: Pillow does not write 16-bit color."""

  def chunk(kind, body):
    crc = struct.pack('>I', zlib.crc32(kind + body))
    return struct.pack('>I', len(body)) + kind + body + crc

  header = struct.pack('>IIBBBBB', width, height, depth, color_type, 0, 0, 0)
  body = zlib.compress(b''.join(b'\0' + row for row in rows))
  return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', header) + chunk(b'IDAT', body) + chunk(b'IEND', b'')


def palette(transparent):
  image = Image.new('P', (2, 1))
  image.putpalette([10, 20, 30, 200, 100, 50])
  image.putdata([0, 1])
  return encode(image, **({'transparency': 1} if transparent else {}))


def color_key():
  image = Image.new('RGB', (2, 1), (1, 2, 3))
  image.putpixel((1, 0), (9, 8, 7))
  return encode(image, transparency=(9, 8, 7))


class DecodeTest(parameterized.TestCase):
  @parameterized.named_parameters(
    ('gray', one_pixel('L', 77), [[77, 77, 77]]),
    ('rgb', one_pixel('RGB', (1, 2, 3)), [[1, 2, 3]]),
    ('bit', one_pixel('1', 1), [[255, 255, 255]]),
    ('half_transparent_red', one_pixel('RGBA', (255, 0, 0, 128)), [[255, 127, 127]]),
    ('transparent_black', one_pixel('RGBA', (0, 0, 0, 0)), [[255, 255, 255]]),
    ('half_transparent_gray', one_pixel('LA', (100, 128)), [[177, 177, 177]]),
    ('palette', palette(False), [[10, 20, 30], [200, 100, 50]]),
    ('palette_transparent', palette(True), [[10, 20, 30], [255, 255, 255]]),
    ('color_key', color_key(), [[1, 2, 3], [255, 255, 255]]),
    # 16 bits a channel: 0x80ff is 128.996 of 255; Pillow keeps the high byte of colors.
    ('rgb_16', png(1, 1, 16, 2, [bytes.fromhex('80ff0000ffff')]), [[128, 0, 255]]),
    (
      'gray_16',
      png(4, 1, 16, 0, [struct.pack('>4H', 0, 255, 200 * 257, 65535)]),
      [[0] * 3, [1] * 3, [200] * 3, [255] * 3],
    ),
  )
  def test_pixels_in_color(self, encoded, expected):
    pixels = decode.decode(encoded, 3, 'key')
    self.assertEqual(pixels.dtype, np.uint8)
    np.testing.assert_array_equal(pixels, np.array(expected)[None])

  @parameterized.named_parameters(
    ('gray', one_pixel('L', 77), 77),
    ('red', one_pixel('RGB', (255, 0, 0)), 76),
    ('green', one_pixel('RGB', (0, 255, 0)), 150),
    ('transparent', one_pixel('LA', (100, 0)), 255),
    ('bit', one_pixel('1', 0), 0),
    ('gray_16', png(1, 1, 16, 0, [struct.pack('>H', 200 * 257)]), 200),
  )
  def test_pixels_in_gray(self, encoded, expected):
    pixels = decode.decode(encoded, 1, 'key')
    np.testing.assert_array_equal(pixels, [[[expected]]])
    self.assertTrue(pixels.flags.writeable)

  @parameterized.named_parameters(
    ('rgb', 'RGB', (200, 30, 60), (200, 30, 60)),
    ('cmyk', 'CMYK', (0, 255, 255, 0), (255, 0, 0)),
    ('gray', 'L', 90, (90, 90, 90)),
  )
  def test_jpeg(self, mode, value, expected):
    encoded = encode(Image.new(mode, (16, 16), value), 'JPEG', quality=100)
    pixels = decode.decode(encoded, 3, 'key')
    self.assertEqual(pixels.shape, (16, 16, 3))
    self.assertLessEqual(np.abs(pixels.astype(int) - expected).max(), 2)

  @parameterized.parameters('PNG', 'JPEG')
  def test_orientation_is_applied(self, kind):
    # Stored lying on its side: orientation 6 means "turn clockwise to view".
    image = Image.new('RGB', (32, 16), (0, 0, 0))
    image.paste((255, 255, 255), (0, 0, 16, 16))  # White on the left as stored.
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = decode.decode(encode(image, kind, exif=exif), 1, 'key')
    self.assertEqual(pixels.shape, (32, 16, 1))
    self.assertGreater(pixels[:14].min(), 240)  # White on top as viewed.
    self.assertLess(pixels[18:].max(), 15)

  def test_damage_is_an_error_or_harmless_at_every_cut(self):
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    encoded = encode(Image.fromarray(noise))
    for length in range(len(encoded)):
      try:
        np.testing.assert_array_equal(decode.decode(encoded[:length], 3, 'key'), noise)
      except errors.DataError as error:
        self.assertStartsWith(str(error), 'image=key: ')
    with self.assertRaisesRegex(errors.DataError, 'image=a/b.png: damaged .*; restore or remove'):
      decode.decode(encoded[: len(encoded) // 2], 3, 'a/b.png')

  def test_half_a_jpeg(self):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    encoded = encode(Image.fromarray(noise), 'JPEG')
    with self.assertRaisesRegex(errors.DataError, 'image=x.jpg: damaged'):
      decode.decode(encoded[: len(encoded) // 2], 3, 'x.jpg')

  @parameterized.parameters('PNG', 'JPEG')
  def test_flipped_bits_raise_nothing_else(self, kind):
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    encoded = encode(Image.fromarray(noise), kind)
    generator = random.Random(0)
    failed = 0
    for _ in range(300):
      damaged = bytearray(encoded)
      damaged[generator.randrange(len(damaged))] ^= 1 << generator.randrange(8)
      try:
        decode.decode(bytes(damaged), 3, 'key')
      except errors.DataError:
        failed += 1
    self.assertGreater(failed, 10)

  @parameterized.parameters(b'', b'GIF89a', b'<html></html>' * 10)
  def test_other_files(self, encoded):
    with self.assertRaisesRegex(errors.DataError, 'image=key: neither a JPEG nor a PNG file'):
      decode.decode(encoded, 3, 'key')

  def test_other_formats_that_pillow_reads_are_refused(self):
    with self.assertRaisesRegex(errors.DataError, 'neither'):
      decode.decode(encode(Image.new('RGB', (4, 4)), 'BMP'), 3, 'key')

  # Pillow itself only warns of the first, which is between once and twice its limit.
  @parameterized.parameters((10_000, 9_000), (50_000, 50_000))
  def test_bomb(self, width, height):
    bomb = png(width, height, 8, 2, [b''])
    with self.assertRaisesRegex(errors.DataError, 'image=key: more than 89478485 pixels'):
      decode.decode(bomb, 3, 'key')

  def test_bomb_prints_no_warning(self):
    bomb = png(10_000, 9_000, 8, 2, [b''])
    done = run_program('decodes_stdin', input=bomb, text=False)
    self.assertNotIn(b'Warning', done.stderr)
    self.assertIn(b'more than', done.stderr)

  def test_channels(self):
    with self.assertRaisesRegex(ValueError, 'channels=4'):
      decode.decode(one_pixel('L', 0), 4, 'key')


class FitTest(parameterized.TestCase):
  def test_returns_what_fits_already(self):
    image = np.zeros((5, 5, 3), np.uint8)
    self.assertIs(decode.fit(image, 5), image)

  @parameterized.parameters(((4, 8), (slice(None), slice(2, 6))), ((8, 4), (slice(2, 6),)))
  def test_crops_the_center(self, shape, kept):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    np.testing.assert_array_equal(decode.fit(image, 4), image[kept])

  @parameterized.parameters(1, 3)
  def test_equals_resize_then_crop(self, channels):
    image = np.random.default_rng(0).integers(0, 256, (64, 128, channels), np.uint8)
    whole = Image.fromarray(image.squeeze()).resize((64, 32), Image.Resampling.BICUBIC)
    expected = np.asarray(whole).reshape(32, 64, channels)[:, 16:48]
    np.testing.assert_array_equal(decode.fit(image, 32), expected)

  def test_antialias(self):
    # Stripes finer than the result's pixels: without antialias they alias to 0 or 255.
    image = np.zeros((64, 64, 1), np.uint8)
    image[:, ::2] = 255
    middle = decode.fit(image, 16)[2:-2, 2:-2].astype(int)
    self.assertLessEqual(np.abs(middle - 127.5).max(), 2)

  def test_odd_margins_are_centered(self):
    # 5 columns on 2 rows, a bright one in the middle: the result is symmetric.
    image = np.zeros((2, 5, 1), np.uint8)
    image[:, 2] = 200
    fitted = decode.fit(image, 4)
    np.testing.assert_array_equal(fitted, fitted[:, ::-1])
    self.assertGreater(fitted.max(), 100)

  def test_extreme_aspect_is_cheap(self):
    # Resized whole this would be 64 x 6,400,000 pixels.
    image = np.full((1, 100_000, 3), 9, np.uint8)
    np.testing.assert_array_equal(decode.fit(image, 64), np.full((64, 64, 3), 9))


if __name__ == '__main__':
  absltest.main()
