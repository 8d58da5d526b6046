"""Prepares and reads data sets: those of tfds, ILSVRC12, and folders of images."""
