"""Reads and prepares data sets: tfds, ILSVRC12, folders of images."""
