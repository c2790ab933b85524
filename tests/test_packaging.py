"""The wheel of the sdist is complete and works outside the repository, and CI runs the targets of make."""

import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml

from medmtl.version import __version__

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel installs, the wheel being built from the sdist."""
    place = tmp_path_factory.mktemp("package")
    build = [sys.executable, "-m", "hatchling", "build"]
    subprocess.run([*build, "-t", "sdist", "-d", place], cwd=ROOT, check=True, capture_output=True)
    (sdist,) = place.glob("*.tar.gz")
    with tarfile.open(sdist) as content:
        content.extractall(place / "source", filter="data")
    (source,) = (place / "source").iterdir()
    subprocess.run([*build, "-t", "wheel", "-d", place], cwd=source, check=True, capture_output=True)
    (wheel,) = place.glob("*.whl")
    assert wheel.name == f"medmtl-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as content:
        content.extractall(place / "site")
    return place / "site"


def test_the_wheel_holds_every_file_of_the_package_and_every_configuration(unpacked: Path) -> None:
    expected = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "medmtl").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    expected |= {f"medmtl/configs/{path.name}" for path in (ROOT / "configs").iterdir()}
    expected.add("medmtl/LICENSE")  # which an exported bundle carries with the modules
    found = {path.relative_to(unpacked).as_posix() for path in (unpacked / "medmtl").rglob("*") if path.is_file()}
    assert found == expected
    (entry,) = unpacked.glob("*.dist-info/entry_points.txt")
    assert "medmtl = medmtl.cli:main" in entry.read_text()


def test_it_finds_its_configurations_and_its_help_without_the_repository(unpacked: Path, tmp_path: Path) -> None:
    code = (
        "import medmtl, sys; from medmtl.cli import main; print(medmtl.__file__)\n"
        "try: main(['fit', '--help'])\nexcept SystemExit: pass\n"
        "main(['completion', 'bash'])\n"
        "from medmtl.training.config_files import find_config; print(find_config('multitask.yaml'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(unpacked), *_others()])},
        capture_output=True,
        text=True,
        check=True,
    )
    first, *_, last = done.stdout.splitlines()
    assert first == str(unpacked / "medmtl" / "__init__.py")
    assert last == str(unpacked / "medmtl" / "configs" / "multitask.yaml")
    assert "patches in a batch of each process (default: 4)" in done.stdout
    assert "multitask-classes.yaml" in done.stdout


def _others() -> list[str]:
    return [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place and place != str(ROOT)]


def test_the_workflow_calls_what_ci_calls_and_only_targets_that_exist() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    called = {step["run"] for job in jobs.values() for step in job["steps"] if "run" in step}
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    assert called <= {f"make {target}" for target in targets}
    assert set(re.findall(r"^make \w+$", (ROOT / ".ci" / "run").read_text(), flags=re.MULTILINE)) <= called
    assert {"make docs", "make package"} <= called


def test_every_python_of_the_workflow_is_one_that_the_package_names() -> None:
    text = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    matrix = yaml.safe_load(text)["jobs"]["test"]["strategy"]["matrix"]["python"]
    named = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', (ROOT / "pyproject.toml").read_text())
    assert matrix == named
    assert f">={matrix[0]}" in (ROOT / "pyproject.toml").read_text()


def test_the_image_copies_what_the_build_needs() -> None:
    text = (ROOT / "Dockerfile").read_text()
    copied = set(re.findall(r"\S+", " ".join(re.findall(r"^COPY (?!--)(.+) \S+$", text, flags=re.MULTILINE))))
    for name in copied:
        assert (ROOT / name).exists()
        assert f"!{name}\n" in (ROOT / ".dockerignore").read_text()
    assert {"pyproject.toml", "constraints.txt", "README.md", "LICENSE", "configs", "medmtl"} <= copied
