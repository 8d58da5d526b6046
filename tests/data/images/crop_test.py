"""Tests of the crops of training and evaluation, and of the fast way of decoding."""

import hashlib
import io

import cv2
import numpy as np
from absl.testing import absltest, parameterized
from PIL import Image

from bitnet_jax import errors
from bitnet_jax.data.images import crop, decode

AREA, ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)
NO_BITS = np.zeros(crop.NUM_RANDOM_WORDS, np.uint64)


def photo(height, width, seed=0):
  """Smooth colors, so that an image and its shrunken form have the same."""
  coarse = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
  return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)


def encode(image, kind='JPEG', **options):
  image = image if isinstance(image, Image.Image) else Image.fromarray(image)
  file = io.BytesIO()
  image.save(file, kind, **{'quality': 95, 'subsampling': 0, **options} if kind == 'JPEG' else {})
  return file.getvalue()


def turned(image, orientation):
  exif = Image.Exif()
  exif[0x0112] = orientation
  return encode(image, exif=exif)


def bits_of(*tries):
  """Draws that make the given uniform numbers."""
  uniforms = np.zeros((crop.TRIES, 5))
  uniforms[: len(tries)] = tries
  return (uniforms.reshape(-1) * 2**53).astype(np.uint64) << np.uint64(11)


class ExampleDrawsTest(absltest.TestCase):
  def test_never_changes(self):
    """Crops of a run that goes on with another version must be those of the run that began."""
    digest = hashlib.sha256(crop.example_random_bits(3, 40, 5).tobytes()).hexdigest()
    self.assertEqual(digest[:16], '7f9b73f31cfe679f')

  def test_differ_by_seed_step_and_position(self):
    bits = [
      crop.example_random_bits(seed, step, position)
      for seed in range(3)
      for step in range(5)
      for position in range(5)
    ]
    self.assertLen(np.unique(np.concatenate(bits)), 75 * crop.NUM_RANDOM_WORDS)


class RandomAreaBoxTest(parameterized.TestCase):
  def boxes(self, height, width, number=4000):
    found = [
      crop.random_area_box(
        height, width, crop.example_random_bits(0, step, 0), area=AREA, aspect=ASPECT
      )
      for step in range(number)
    ]
    return np.array([box for box in found if box is not None]), found.count(None)

  def test_by_hand(self):
    # Half of 100 x 200 pixels, as wide as high: 100 x 100; of 101 places across the last but one.
    share = (0.5 - 0.08) / 0.92
    square = (1 - 0.75) / (4 / 3 - 0.75)
    bits = bits_of((share, square, 0.9, 0.0, 99.5 / 101))
    box = crop.random_area_box(100, 200, bits, area=AREA, aspect=ASPECT)
    self.assertEqual(box, (0, 99, 100, 100))

  def test_turns_in_half_of_the_cases(self):
    # A quarter of 120 x 160 at 4:3 is 60 high and 80 wide, or turned.
    share, wide = (0.25 - 0.08) / 0.92, 1 - 1e-9
    for turn, shape in ((0.51, (60, 80)), (0.49, (80, 60))):
      bits = bits_of((share, wide, turn, 0, 0))
      box = crop.random_area_box(120, 160, bits, area=AREA, aspect=ASPECT)
      self.assertEqual(box[2:], shape)

  def test_takes_the_first_try_that_fits(self):
    whole, small = (1.0 - 1e-9, 0.0, 0.9, 0, 0), (0.0, 3 / 7, 0.9, 0, 0)
    box = crop.random_area_box(100, 400, bits_of(whole, whole, small), area=AREA, aspect=ASPECT)
    self.assertEqual(box[2:], (57, 57))  # sqrt(0.08 * 40,000) = 56.6
    failing = bits_of(*[whole] * crop.TRIES)
    self.assertIsNone(crop.random_area_box(100, 400, failing, area=AREA, aspect=ASPECT))

  @parameterized.parameters((375, 500), (500, 333), (224, 224), (3, 3), (1, 1))
  def test_lies_within(self, height, width):
    boxes, _ = self.boxes(height, width, 500)
    top, left, rows, columns = boxes.T
    self.assertGreaterEqual(boxes.min(), 0)
    self.assertGreaterEqual(min(rows.min(), columns.min()), 1)
    self.assertLessEqual((top + rows).max(), height)
    self.assertLessEqual((left + columns).max(), width)

  def test_distribution(self):
    height, width = 400, 400
    boxes, failed = self.boxes(height, width)
    self.assertLess(failed, 5)
    top, left, rows, columns = boxes.T
    share, ratio = rows * columns / (height * width), columns / rows
    self.assertBetween(share.min(), 0.078, 0.09)
    self.assertBetween(ratio.min(), 0.74, 0.76)
    self.assertBetween(ratio.max(), 1.32, 1.35)
    # Below 3/4 of the area every shape fits, so that no try was rejected for its size.
    small = share[share < 0.75]
    self.assertAlmostEqual(np.median(small), (0.08 + 0.75) / 2, delta=0.02)
    self.assertAlmostEqual((columns > rows).mean(), 0.5, delta=0.05)
    across = left / np.maximum(1, width - columns)
    down = top / np.maximum(1, height - rows)
    self.assertAlmostEqual(across.mean(), 0.5, delta=0.025)
    self.assertAlmostEqual(down.mean(), 0.5, delta=0.025)
    self.assertLess(abs(np.corrcoef(across, down)[0, 1]), 0.07)

  def test_strip_falls_back_to_its_center(self):
    image = photo(20, 400)
    cut = crop.RandomResizedCrop(10, antialias=True)
    boxes = [
      crop.random_area_box(20, 400, crop.example_random_bits(0, s, 0), area=AREA, aspect=ASPECT)
      for s in range(60)
    ]
    step = boxes.index(None)
    got = cut(encode(image, 'PNG'), 3, 'k', crop.example_random_bits(0, step, 0))
    whole = Image.fromarray(image).resize((200, 10), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(got, np.asarray(whole)[:, 95:105])


class RandomAreaTest(parameterized.TestCase):
  @parameterized.parameters(False, True)
  def test_is_crop_then_resize(self, antialias):
    encoded, bits = encode(photo(300, 400)), crop.example_random_bits(0, 0, 0)
    top, left, height, width = crop.random_area_box(300, 400, bits, area=AREA, aspect=ASPECT)
    whole = np.asarray(Image.open(io.BytesIO(encoded)))
    part = whole[top : top + height, left : left + width]
    self.assertLess(max(224 / height, 224 / width), 2)
    if antialias:
      want = np.asarray(Image.fromarray(part).resize((224, 224), Image.Resampling.BICUBIC))
    else:
      want = cv2.resize(part, (224, 224), interpolation=cv2.INTER_CUBIC)
    got = crop.RandomResizedCrop(224, antialias=antialias)(encoded, 3, 'k', bits)
    np.testing.assert_array_equal(got, want)

  @parameterized.parameters(0, 1, 2, 3)
  def test_shrunken_decoding_gives_the_same_picture(self, step):
    encoded, bits = encode(photo(1500, 2000)), crop.example_random_bits(1, step, 0)
    cut = crop.RandomResizedCrop(64)
    top, left, height, width = crop.random_area_box(1500, 2000, bits, area=AREA, aspect=ASPECT)
    self.assertGreater(min(height, width), 4 * 64)  # Decoded at a quarter or less.
    whole = np.asarray(Image.open(io.BytesIO(encoded)))
    part = Image.fromarray(whole[top : top + height, left : left + width])
    want = np.asarray(part.resize((64, 64), Image.Resampling.BICUBIC)).astype(int)
    self.assertLess(np.abs(cut(encoded, 3, 'k', bits) - want).mean(), 1.5)

  @parameterized.parameters((7, 5), (1, 1), (1, 90), (90, 1), (3, 224))
  def test_any_size(self, height, width):
    image = np.full((height, width, 3), (10, 200, 90), np.uint8)
    for encoded in (encode(image), encode(image, 'PNG')):
      for step in range(20):
        got = crop.RandomResizedCrop(32)(encoded, 3, 'k', crop.example_random_bits(0, step, 0))
        np.testing.assert_allclose(got.reshape(-1, 3), [[10, 200, 90]] * 32**2, atol=2)


class EvaluationTest(parameterized.TestCase):
  def test_shorter_side_then_center(self):
    encoded = encode(photo(300, 401), 'PNG')
    got = crop.CenterCrop(224, resize=256, antialias=True)(encoded, 3, 'k', NO_BITS)
    whole = Image.open(io.BytesIO(encoded)).resize((342, 256), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(got, np.asarray(whole)[16:240, 59:283])

  def test_five_crops(self):
    rows, columns = np.mgrid[:9, :12].astype(np.uint8)
    image = np.stack([rows, columns, rows], -1)
    corners = [view[0, 0, :2].tolist() for view in crop.five_crops(image, 4)]
    # Torch rounds the center up: (9 - 4) / 2 is 3.
    self.assertEqual(corners, [[3, 4], [0, 0], [0, 8], [5, 0], [5, 8]])
    self.assertEqual({view.shape for view in crop.five_crops(image, 4)}, {(4, 4, 3)})

  def test_views_are_stacked(self):
    encoded = encode(photo(60, 50), 'PNG')
    views = crop.FiveCrop(16, resize=20)(encoded, 3, 'k', NO_BITS)
    one = crop.CenterCrop(16, resize=20)(encoded, 3, 'k', NO_BITS)
    self.assertEqual(views.shape, (5, 16, 16, 3))
    np.testing.assert_array_equal(views[0], one)

  def test_large_photo_keeps_its_center(self):
    image = photo(1800, 2400)
    encoded = encode(image)
    got = crop.CenterCrop(56, resize=64)(encoded, 3, 'k', NO_BITS)
    whole = Image.fromarray(image).resize((85, 64), Image.Resampling.BICUBIC)
    want = np.asarray(whole)[4:60, 15:71].astype(int)
    self.assertLess(np.abs(got - want).mean(), 2)

  def test_strip_costs_little_memory(self):
    """Resized whole, this would have 256 x 25,600,000 pixels."""
    encoded = encode(np.full((1, 65000, 3), 77, np.uint8))
    got = crop.CenterCrop(224, resize=256)(encoded, 3, 'k', NO_BITS)
    np.testing.assert_array_equal(got, np.full((224, 224, 3), 77))

  def test_fit_is_what_the_resident_way_does(self):
    encoded = encode(photo(60, 50))
    got = crop.CenterCrop(32)(encoded, 3, 'k', NO_BITS)
    np.testing.assert_array_equal(got, decode.fit(decode.decode(encoded, 3, 'k'), 32))


class EveryModeTest(parameterized.TestCase):
  """A color comes out as that color, whatever the file is and however it is cropped."""

  @parameterized.product(
    kind=(
      crop.RandomResizedCrop(16),
      crop.RandomResizedCrop(16, antialias=True),
      crop.FiveCrop(16, resize=18),
      crop.CenterCrop(16),
    ),
    size=((30, 40), (1, 1)),
    case=('gray', 'rgb', 'cmyk', 'palette', 'alpha', 'gray16', 'png_gray', 'exif', '420'),
  )
  def test_comes_out_as_rgb(self, kind, size, case):
    red, gray = (200, 30, 60), (90, 90, 90)
    rgb = Image.new('RGB', size[::-1], red)
    encoded, color = {
      'gray': (encode(Image.new('L', size[::-1], 90)), gray),
      'rgb': (encode(rgb), red),
      'cmyk': (encode(rgb.convert('CMYK')), red),
      'palette': (encode(rgb.convert('P', palette=Image.Palette.ADAPTIVE), 'PNG'), red),
      'alpha': (encode(Image.new('RGBA', size[::-1], (*red, 0)), 'PNG'), (255, 255, 255)),
      'gray16': (encode(Image.new('I;16', size[::-1], 90 * 257), 'PNG'), gray),
      'png_gray': (encode(Image.new('L', size[::-1], 90), 'PNG'), gray),
      'exif': (turned(rgb, 6), red),
      '420': (encode(rgb, subsampling=2), red),
    }[case]
    got = kind(encoded, 3, 'k', crop.example_random_bits(0, 0, 0))
    self.assertEqual(got.dtype, np.uint8)
    self.assertEqual(got.shape[-3:], (16, 16, 3))
    np.testing.assert_allclose(got.reshape(-1, 3).astype(int), [color] * (got.size // 3), atol=4)


class EncodedImageTest(parameterized.TestCase):
  @parameterized.parameters(0, 1, 2)
  def test_fast_way_has_the_pixels_of_the_slow_one(self, subsampling):
    encoded = encode(photo(61, 83), subsampling=subsampling)
    image = decode.EncodedImage(encoded, 3, 'k')
    self.assertEqual((image.height, image.width), (61, 83))
    np.testing.assert_array_equal(image.pixels()[0], decode.decode(encoded, 3, 'k'))

  @parameterized.parameters(
    (1.0, 1), (0.51, 1), (0.5, 2), (0.26, 2), (0.25, 4), (0.1, 8), (0.01, 8)
  )
  def test_shrinks_as_far_as_it_may(self, scale, factor):
    image = decode.EncodedImage(encode(photo(801, 640)), 3, 'k')
    pixels, got = image.pixels(scale)
    self.assertEqual(got, factor)
    self.assertEqual(pixels.shape[:2], (-(-801 // factor), -(-640 // factor)))

  @parameterized.parameters(1, 2, 3, 4, 5, 6, 7, 8)
  def test_exif_orientation_is_applied(self, orientation):
    encoded = turned(photo(40, 60), orientation)
    image = decode.EncodedImage(encoded, 3, 'k')
    shape = (40, 60) if orientation < 5 else (60, 40)
    self.assertEqual((image.height, image.width), shape)
    np.testing.assert_array_equal(
      image.pixels(0.1 if orientation > 1 else 1)[0], decode.decode(encoded, 3, 'k')
    )

  @parameterized.parameters(1.0, 0.25)
  def test_truncated_is_named(self, scale):
    encoded = encode(photo(300, 400))
    for length in (10, 300, len(encoded) // 2, len(encoded) - 40):
      with self.assertRaisesRegex(errors.DataError, 'image=some.jpg: '):
        decode.EncodedImage(encoded[:length], 3, 'some.jpg').pixels(scale)


if __name__ == '__main__':
  absltest.main()
