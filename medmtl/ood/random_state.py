"""The state of the global random number generators."""

from typing import Any

import numpy as np
import torch


def global_random_state() -> tuple[bytes, bytes]:
    """The states of the global random numbers of torch and numpy."""
    state: Any = np.random.get_state()  # noqa: NPY002
    return torch.get_rng_state().numpy().tobytes(), state[1].tobytes()
