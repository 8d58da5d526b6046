"""Counts and bounds the linear regions of ReLU networks for section 3.3."""
