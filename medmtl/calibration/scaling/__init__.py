"""Post-hoc scaling of probabilities: parametric, local and vector scaling."""
