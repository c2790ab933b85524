"""How to install what only some commands need, with the command that works where this medmtl was installed."""

import shlex
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires

from medmtl.files import PACKAGE, read_text


def how_to_install(extra: str) -> str:
    """What to type for the libraries of an extra, such as `ood`: they are named, since no registry has medmtl."""
    return f"{shlex.quote(sys.executable)} -m pip install {shlex.join(libraries_of(extra))}"


def libraries_of(extra: str) -> list[str]:
    """The requirements of an extra, from the checkout that this module lies in, or from what was installed."""
    project = PACKAGE.parent / "pyproject.toml"
    if project.is_file():
        extras: dict[str, list[str]] = tomllib.loads(read_text(project))["project"]["optional-dependencies"]
        return extras[extra]
    try:
        found = [line.partition(";") for line in requires("medmtl") or ()]
    except PackageNotFoundError:  # a copy of the package alone
        return [extra]
    return [name.strip() for name, _, when in found if f"extra == '{extra}'" in when.replace('"', "'")]
