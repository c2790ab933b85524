"""Evidence: what one pass of the network leaves for all detectors."""
