"""Compares the paper's tables with the networks, counts and errors of this implementation."""
