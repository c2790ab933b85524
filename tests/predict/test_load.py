"""`medmtl.load` is the door for Python."""

import inspect
import subprocess
import sys

import pytest

import medmtl
from medmtl.predict.model import Model


def test_it_loads_a_run_with_what_is_asked_for() -> None:
    assert medmtl.load == Model.load
    defaults = {name: option.default for name, option in inspect.signature(medmtl.load).parameters.items()}
    assert defaults.pop("path") is inspect.Parameter.empty
    unset = {"device": "auto", "precision": "32", "window_batch": None, "alpha": None, "trust": False, "fast": False}
    assert defaults == unset
    assert "load" in dir(medmtl)


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import medmtl, sys; assert medmtl.__version__; sys.exit(bool({'torch', 'monai', 'numpy'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_is_not_there_is_named() -> None:
    with pytest.raises(AttributeError, match="'medmtl' has no attribute 'laod'"):
        _ = medmtl.laod
