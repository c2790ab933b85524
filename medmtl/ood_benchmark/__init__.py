"""The out-of-distribution benchmark: which detector notices which shift of a trained run."""
