"""Measures speed and memory for `python -m bitnet_jax.benchmark`, each in a module of its own."""
