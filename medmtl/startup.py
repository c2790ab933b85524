"""What a command does before it begins: import torch, Lightning and MONAI without looking for garbage in them."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def importing() -> Iterator[None]:
    """Import libraries within this block, without garbage collection then and without theirs in every later one.

    The million objects of torch, Lightning and MONAI live as long as the process. To look through them again and again
    is a sixth of the time of importing them, and afterwards half of the time of drawing a figure.
    """
    if not gc.isenabled():  # the caller's choice
        yield
        return
    known = len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > known:  # not for a later command of the same process, whose garbage would be kept
            gc.freeze()
        gc.enable()
