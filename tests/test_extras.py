"""What is said where a library is missing works as it is printed."""

import re
import shlex
import sys
import tomllib
from pathlib import Path

import pytest

from medmtl import extras
from medmtl.extras import how_to_install, libraries_of

ROOT = Path(__file__).parent.parent
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
TEXTS = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("medmtl/**/*.py"), *ROOT.glob("notebooks/*.ipynb")]


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_libraries_are_named_for_this_python(extra: str) -> None:
    python, *pip, first = shlex.split(how_to_install(extra))[:5]
    assert (python, *pip) == (sys.executable, "-m", "pip", "install")
    assert first == EXTRAS[extra][0]
    assert libraries_of(extra) == EXTRAS[extra]


def test_outside_a_checkout_they_are_those_of_the_installed_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "PACKAGE", tmp_path / "site-packages" / "medmtl")
    lines = ["torch>=2.8", "torchio>=1.2; extra == 'ood'", 'pydicom>=3 ; extra == "dicom"', "x; extra == 'dicom'"]
    monkeypatch.setattr(extras, "requires", lambda name: lines)
    assert libraries_of("ood") == ["torchio>=1.2"]
    assert libraries_of("dicom") == ["pydicom>=3", "x"]


def test_no_text_names_a_package_that_no_registry_has() -> None:
    for path in TEXTS:
        assert not re.search(r"pip install '?medmtl", path.read_text()), path
        for extra in re.findall(r"pip install '\.\[(\w+)\]'", path.read_text()):
            assert extra in EXTRAS
