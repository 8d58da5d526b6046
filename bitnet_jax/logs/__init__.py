"""Records what a run did: metrics, progress, environment."""
