"""The gallery of a prediction: page and template."""
