"""The reward model: loading, packing, and where scores are read."""
