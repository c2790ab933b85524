"""Running the planned trainings, here or on a cluster."""
