"""Compares the paper's tables with what the networks here have."""
