"""Counts the networks, compares them with the paper's tables and draws figures for readers."""
