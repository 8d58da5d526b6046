"""Turns images on disk into batches on the devices."""
