"""`make lint` refuses binaries and large files that git tracks."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "tracked_files.py"


def lines_for(folder: Path, files: dict[str, bytes]) -> list[str]:
    """What the check prints for a repository with these files staged."""
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    subprocess.run(["git", "add", "--all"], cwd=folder, check=True)
    done = subprocess.run([sys.executable, SCRIPT, folder], capture_output=True, text=True, check=False)
    assert done.returncode == int(bool(done.stderr))
    return done.stderr.splitlines()


def test_sources_pictures_of_the_docs_and_small_checkpoints_pass(tmp_path: Path) -> None:
    files = {
        "code.py": b"x = 1\n",
        "docs/report.png": b"\x89PNG\0" * 1000,
        "tests/fixtures/old/best.ckpt": b"PK\0" * 1000,
        "odd name \u00e9.txt": b"",
    }
    assert lines_for(tmp_path, files) == []


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("torch-2.8.whl", b"PK\0", "is binary"),
        ("docs/tool.bin", b"\0", "is binary"),
        ("best.ckpt", b"PK\0", "is binary"),
        ("data.csv", b"1,2\n" * 600_000, "has 2400000 bytes"),
        ("docs/huge.png", b"\0" * 2_200_000, "has 2200000 bytes"),
        ("tests/fixtures/best.ckpt", b"\0" * 1_100_000, "has 1100000 bytes"),
    ],
)
def test_binaries_and_large_files_are_named(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (line,) = lines_for(tmp_path, {"code.py": b"", name: content})
    assert line.startswith(f"{name} {reason}")


def test_what_is_staged_counts_not_what_lies_in_the_folder(tmp_path: Path) -> None:
    assert lines_for(tmp_path, {"code.py": b""}) == []
    (tmp_path / "notes.bin").write_bytes(b"\0")
    assert subprocess.run([sys.executable, SCRIPT, tmp_path], check=False).returncode == 0
