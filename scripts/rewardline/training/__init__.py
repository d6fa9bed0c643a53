"""Training a reward model with DeepSpeed."""
