"""Joins devices and processes into one run."""
