"""The out-of-distribution benchmark: which detector finds which OOD images and shifts on a trained run."""
