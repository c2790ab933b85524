"""The data doctor: what is in a dataset, what is wrong with it, and how to bring it into a configuration."""
