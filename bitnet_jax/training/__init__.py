"""Trains a network: from a configuration to a saved state, step by step."""
