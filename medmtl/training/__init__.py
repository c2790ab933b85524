"""`medmtl fit`, `test` and `calibrate`, and a trained run as its checkpoint has it."""
