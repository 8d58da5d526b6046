"""Turns encoded images into the pixels that a network sees."""
