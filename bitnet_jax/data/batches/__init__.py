"""Groups examples into batches, from memory or from a stream."""
