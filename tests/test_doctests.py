"""The examples in the docstrings of the plain rooms give what they show.

An example may use `torch`, `np`, what its module defines and what its package exports without an import.
"""

import doctest
import importlib
import pkgutil

import numpy as np
import pytest
import torch

ROOMS = ("medmtl.calibration", "medmtl.losses", "medmtl.ood", "medmtl.accuracy", "medmtl.bootstrap", "medmtl.contract")


def modules_of(room: str) -> list[str]:
    package = importlib.import_module(room)
    paths = getattr(package, "__path__", [])
    return [room, *(found.name for found in pkgutil.walk_packages(paths, f"{room}."))]


def examples_of(name: str) -> list[doctest.DocTest]:
    """The docstrings of a module that hold examples."""
    module, room = importlib.import_module(name), importlib.import_module(".".join(name.split(".")[:2]))
    exported = {public: getattr(room, public) for public in getattr(room, "__all__", ())}
    found = doctest.DocTestFinder(exclude_empty=True).find(
        module, globs={"torch": torch, "np": np, **exported, **vars(module)}
    )
    return [docstring for docstring in found if docstring.examples]


@pytest.mark.parametrize("room", ROOMS)
def test_examples_give_what_they_show(room: str) -> None:
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    report: list[str] = []
    for name in modules_of(room):
        for docstring in examples_of(name):
            runner.run(docstring, out=report.append)
    assert not report, "".join(report)


def test_what_is_called_on_plain_tensors_has_an_example() -> None:
    named = {
        docstring.name.rpartition(".")[2] for room in ROOMS for m in modules_of(room) for docstring in examples_of(m)
    }
    expected = {"bin_volume", "ece", "ace", "summarise", "band", "BinMetric", "CalibrationMetrics", "Temperature"}
    assert (
        expected | {"TaskScalings", "ML1ACE", "SVLS", "WeightedSum", "dice", "surface_distances", "Resamples"} <= named
    )
