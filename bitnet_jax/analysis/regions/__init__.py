"""Counts and bounds the linear regions of ReLU networks (section 3.3)."""
