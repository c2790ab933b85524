"""What `check_detector` and `check_shift` share."""

from typing import Any

import numpy as np
import torch


def promise(owner: object, kind: str, kept: object, words: str) -> None:
    """Check one promise of a contract.

    Args:
        owner: the instance that is checked.
        kind: what it is, such as "detector".
        kept: whether the promise is kept.
        words: the promise, as the rest of a sentence after the kind.

    Raises:
        AssertionError: it is broken.
    """
    if not kept:
        raise AssertionError(f"{type(owner).__name__} breaks its contract: a {kind} {words}")


def global_random_state() -> tuple[bytes, bytes]:
    """The states of the global random numbers of torch and numpy."""
    state: Any = np.random.get_state()  # noqa: NPY002
    return torch.get_rng_state().numpy().tobytes(), state[1].tobytes()
