"""The out-of-distribution benchmark: page, figures and template."""
