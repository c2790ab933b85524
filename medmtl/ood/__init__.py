"""Out-of-distribution detection on plain tensors; a higher score is always more out-of-distribution."""
