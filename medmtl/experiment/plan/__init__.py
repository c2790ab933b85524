"""From a protocol to training runs: arms, budgets, splits and fingerprints."""
