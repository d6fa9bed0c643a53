"""How the layers of a model are computed in training: compiled, and with checkpoints of their activations."""
