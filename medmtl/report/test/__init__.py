"""The report of a test: page, figures and template."""
