"""The search for garbage is left out in a block, and is as it was after it."""

import gc

from absl.testing import absltest

from bitnet_jax.runtime import host


class GarbageTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.addCleanup(gc.unfreeze)

  def test_off_within_and_on_after(self):
    with self.assertRaises(KeyError), host.gc_paused():
      self.assertFalse(gc.isenabled())
      raise KeyError
    self.assertTrue(gc.isenabled())

  def test_stays_off_where_it_was(self):
    self.addCleanup(gc.enable)
    gc.disable()
    with host.gc_paused():
      pass
    self.assertFalse(gc.isenabled())

  def test_what_was_made_is_left_out_later(self):
    before = gc.get_freeze_count()
    with host.gc_paused():
      made = [[] for _ in range(1000)]
    self.assertGreaterEqual(gc.get_freeze_count() - before, len(made))


if __name__ == '__main__':
  absltest.main()
