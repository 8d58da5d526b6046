"""Saves and restores training states, and guards the work directory they lie in."""
