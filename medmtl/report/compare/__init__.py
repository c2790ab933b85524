"""The comparison of the arms of an experiment: page, figures, tables and template."""
