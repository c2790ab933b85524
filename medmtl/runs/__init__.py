"""A run as files: its folder, its checkpoint, and its Weights & Biases run."""
