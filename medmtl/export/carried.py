"""The modules of medmtl that a bundle carries, so that it gives the verdict of its run where medmtl is not installed.

They are copied as they are, but for their names: `medmtl` becomes `scripts.carried`. What they import when they are
imported comes along, and no more: packages whose own content nobody imports become empty.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import medmtl
from medmtl.files import read_text

ENTRY = "medmtl.export.bundle_transforms"
CARRIED = "scripts.carried"
ROOT = Path(medmtl.__file__).parent
_IMPORT = re.compile(r"^(\s*(?:from|import) )medmtl\b", re.MULTILINE)


def carried_files() -> dict[str, str]:
    """Path of each module below `scripts/carried` -> its text."""
    found = {_place(path): _IMPORT.sub(rf"\g<1>{CARRIED}", read_text(path)) for path in _needed()}
    packages = {parent / "__init__.py" for name in found for parent in Path(name).parents}
    return {**{path.as_posix(): "" for path in packages}, **found}


def _place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _needed() -> set[Path]:
    found: set[Path] = set()
    waiting = [ENTRY]
    while waiting:
        path = _path(waiting.pop())
        if path is not None and path not in found:
            found.add(path)
            waiting += _imported(path)
    return found


def _imported(path: Path) -> Iterator[str]:
    """The modules of medmtl whose content a module imports when it is imported itself."""
    for statement in ast.parse(read_text(path)).body:
        if not isinstance(statement, ast.ImportFrom) or not (statement.module or "").startswith("medmtl"):
            continue
        for alias in statement.names:
            inner = f"{statement.module}.{alias.name}"
            yield inner if _path(inner) is not None else str(statement.module)


def _path(module: str) -> Path | None:
    place = ROOT.joinpath(*module.split(".")[1:])
    candidates = (place.with_suffix(".py"), place / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)
