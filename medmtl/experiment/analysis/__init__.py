"""From finished runs to the comparison: pairing, statistics and tables."""
