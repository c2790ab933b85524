"""What a command does before it begins: import torch, Lightning and MONAI without looking for garbage in them."""

import gc
import pickle
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


def call_pickled(function: bytes) -> None:
    """Call a function in a process that has just been started, with the imports that it needs.

    Args:
        function: the function, pickled by the process that started this one: only reading it imports its module.
    """
    with importing():
        read = pickle.loads(function)
    read()
