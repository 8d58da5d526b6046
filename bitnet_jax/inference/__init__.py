"""Applies a trained network to images."""
