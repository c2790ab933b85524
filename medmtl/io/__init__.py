"""Everything that opens or writes an image: one set of rules for training and prediction."""
