"""Evidence: what detectors need of one forward pass over an image."""
