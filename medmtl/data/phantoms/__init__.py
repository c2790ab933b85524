"""Digital phantoms: the default data, generated on first use."""
