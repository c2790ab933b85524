"""`medmtl data`: check a dataset, write its block of a configuration, download public data."""
