"""What `python -m bitnet_jax.benchmark` measures, a module each."""
