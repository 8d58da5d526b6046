"""Draws figures for the analysis commands: shared style, labels, and the curves of a run."""
