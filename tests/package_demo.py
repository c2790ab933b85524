"""`make package`: build wheel and sdist, and run a short demo with each in a fresh environment, outside the repository.

The dependencies are installed once, as a user gets them; a short training and its test follow, and the figures of the
test are looked for.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
SHORT = ("--trainer.max_steps=4", "--data.batches=4", "--trainer.accelerator=cpu", "--wandb.mode=disabled")


def run(*words: str | Path, folder: Path) -> None:
    """Run a command that knows nothing of this repository, and say how long it took."""
    began = time.monotonic()
    kept = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    subprocess.run([*map(str, words)], check=True, cwd=folder, env=kept | {"MEDMTL_CACHE": str(folder / "cache")})
    said = " ".join(str(word) for word in words[:4])
    sys.stdout.write(f"{time.monotonic() - began:6.1f} s  {said}\n")
    sys.stdout.flush()


def demo(python: Path, package: Path, folder: Path) -> None:
    """Install a package, the dependencies being there, and train and test with it."""
    run(python, "-m", "pip", "install", "--quiet", "--force-reinstall", "--no-deps", package, folder=folder)
    medmtl, name = python.parent / "medmtl", package.suffix.strip(".")
    run(medmtl, "fit", "--config", "multitask.yaml", "--run", name, *SHORT, folder=folder)
    run(medmtl, "test", "--run", name, folder=folder)
    tasks = json.loads((folder / name / "report" / "report.json").read_text())["tasks"]
    sys.stdout.write(f"{package.name}: tested {', '.join(tasks)}\n")


def main(arguments: Sequence[str]) -> None:
    """Build, install and run; arguments go to pip where the dependencies are installed."""
    shutil.rmtree(DIST, ignore_errors=True)
    run(sys.executable, "-m", "hatchling", "build", "-d", DIST, folder=ROOT)
    (wheel,), (sdist,) = DIST.glob("*.whl"), DIST.glob("*.tar.gz")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        venv.create(folder / "env", with_pip=True)
        python = folder / "env" / "bin" / "python"
        run(python, "-m", "pip", "install", "--quiet", *arguments, wheel, folder=folder)
        for package in (wheel, sdist):
            demo(python, package, folder)


if __name__ == "__main__":
    main(sys.argv[1:])
