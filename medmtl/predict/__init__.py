"""Images in, masks and verdicts out: `medmtl predict` and `medmtl.load`."""
