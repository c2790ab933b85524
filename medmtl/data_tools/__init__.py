"""`medmtl data`: what is in a dataset, what is wrong with it, and its block for a configuration."""
