"""Draws figures: shared style, labels, and the curves of a run."""
