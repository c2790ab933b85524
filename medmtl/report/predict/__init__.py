"""The gallery of predictions: page and template."""
