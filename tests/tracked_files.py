"""Refuse binaries and large files that git tracks: `make lint` runs it.

python tests/tracked_files.py [FOLDER]
"""

import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

LARGEST = 2 * 2**20  # bytes
# Binaries that may be tracked -> their largest size in bytes.
BINARIES = {"docs/*.png": LARGEST, "tests/fixtures/*.ckpt": 2**20}


def refused(root: Path) -> list[str]:
    """A line for every tracked file that does not belong into the repository.

    Args:
        root: the top folder of a git work tree. Files are read as they are staged.
    """
    listed = subprocess.run(["git", "ls-files", "--stage", "-z"], cwd=root, check=True, capture_output=True).stdout
    lines = []
    for entry in filter(None, listed.split(b"\0")):
        about, _, name = entry.partition(b"\t")
        mode, blob, _ = about.decode().split()
        path = name.decode(errors="replace")
        if mode == "160000":
            lines.append(f"{path} is another repository")
            continue
        content = subprocess.run(["git", "cat-file", "blob", blob], cwd=root, check=True, capture_output=True).stdout
        largest = next((size for pattern, size in BINARIES.items() if fnmatch(path, pattern)), None)
        if largest is None and b"\0" in content:
            lines.append(f"{path} is binary")
        elif len(content) > (largest or LARGEST):
            lines.append(f"{path} has {len(content)} bytes, more than {largest or LARGEST}")
    return lines


def main(root: Path) -> int:
    """Print what is refused; the exit code is 1 if anything is."""
    lines = refused(root)
    for line in lines:
        print(f"{line}: remove it with `git rm --cached`", file=sys.stderr)
    return int(bool(lines))


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent))
