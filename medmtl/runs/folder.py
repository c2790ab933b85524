"""RunFolder: everything that one run writes, in one place, found by name."""

import itertools
import json
import logging
import platform
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from medmtl.errors import RunError
from medmtl.exported import is_exported
from medmtl.files import TextError, read_json, write_text
from medmtl.typed import typed

logger = logging.getLogger(__name__)

RUNS = Path("runs")
PACKAGES = (
    "medmtl",
    "torch",
    "monai",
    "pytorch-lightning",
    "torchmetrics",
    "jsonargparse",
    "numpy",
    "nibabel",
    "wandb",
)


@dataclass(frozen=True)
class RunFolder:
    """The paths of one run.

    Attributes:
        path: the folder, for example `runs/multitask`.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The resolved configuration, written by `fit` alone."""
        return self.path / "config.yaml"

    @property
    def splits(self) -> Path:
        """Case ids of every task's training, validation and test part."""
        return self.path / "splits.json"

    @property
    def manifest(self) -> Path:
        """Versions, command, seed, device and durations."""
        return self.path / "run.json"

    @property
    def metrics(self) -> Path:
        """Every logged figure, by step."""
        return self.path / "metrics.csv"

    @property
    def checkpoints(self) -> Path:
        """Folder of `best.ckpt` and `last.ckpt`."""
        return self.path / "checkpoints"

    @property
    def best(self) -> Path:
        """Checkpoint of the highest validation Dice, with signature bank and threshold once training has ended."""
        return self.checkpoints / "best.ckpt"

    @property
    def last(self) -> Path:
        """Checkpoint to resume from."""
        return self.checkpoints / "last.ckpt"

    @property
    def report(self) -> Path:
        """Folder of the test's report."""
        return self.path / "report"

    @property
    def previous(self) -> Path:
        """The run that was here before, while the one that replaces it has no checkpoint, see `medmtl.runs.replace`."""
        return self.path / "previous"

    @property
    def exists(self) -> bool:
        """Whether the folder holds a run."""
        return self.config.is_file() or self.checkpoints.is_dir()

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint to test or to resume from."""
        return self.best.is_file() or self.last.is_file()

    def checkpoint(self) -> Path:
        """The checkpoint to test: the best, or the last where training was cut short before a validation.

        Raises:
            RunError: there is neither.
        """
        for path in (self.best, self.last):
            if path.is_file():
                return path
        if is_exported(self.path):
            raise RunError(f"{self.path} is an exported folder, which is for `medmtl predict`", fix="name the run")
        raise RunError(f"{self.path} holds no checkpoint", fix="train with `medmtl fit`, or name another run")

    @classmethod
    def next_free(cls, name: str) -> "RunFolder":
        """`runs/name`, or the first of `runs/name-2`, `runs/name-3`, ... that does not exist."""
        names = itertools.chain([name], (f"{name}-{number}" for number in itertools.count(2)))
        return cls(next(path for path in map(RUNS.joinpath, names) if not path.exists()))

    @classmethod
    def newest(cls, name: str) -> "RunFolder":
        """The run of that name with the highest number that holds a checkpoint.

        Raises:
            RunError: there is none.
        """
        for _, folder in sorted(_numbered(name), reverse=True):
            run = cls(folder)
            if run.has_checkpoint:
                return run
        raise RunError(
            f"there is no run {RUNS / name} with a checkpoint", fix="train with `medmtl fit`, or name one with --run"
        )

    def read_manifest(self) -> dict[str, Any]:
        """The facts in `run.json`; none if it does not exist, or is damaged: it is then written again."""
        if not self.manifest.is_file():
            return {}
        try:
            return typed(dict[str, Any], read_json(self.manifest))
        except (TextError, ValueError):
            logger.warning("%s is damaged: it is written again, without what it said", self.manifest)
            return {}

    def facts_of(self, part: str) -> dict[str, Any]:
        """What `run.json` says of a command that ran here, or under another of its keys; nothing if it has none."""
        facts = self.read_manifest().get(part)
        return facts if isinstance(facts, dict) else {}

    def seconds_of(self, part: str) -> float | None:
        """How long a command took; None where `run.json` does not say it."""
        try:
            return typed(float, self.facts_of(part).get("seconds"))
        except ValueError:
            return None

    def wandb_runs(self, command: str) -> list[str]:
        """Ids of the W&B runs of a command, the newest last."""
        ids = self.facts_of("wandb").get(command)
        return list(map(str, ids)) if isinstance(ids, list) else []

    def update_manifest(self, **facts: Any) -> None:
        """Add facts to `run.json`."""
        write_text(self.manifest, json.dumps(self.read_manifest() | facts, indent=1) + "\n")


def environment() -> dict[str, Any]:
    """Versions, command and machine, for the manifest."""
    return {
        "command": " ".join(sys.argv),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "git": _git_commit(),
    }


def _numbered(name: str) -> list[tuple[int, Path]]:
    pattern = re.compile(re.escape(name) + r"(?:-(\d+))?")
    folders = [path for path in RUNS.iterdir() if path.is_dir()] if RUNS.is_dir() else []
    found = [(pattern.fullmatch(path.name), path) for path in folders]
    return [(int(match.group(1) or 1), path) for match, path in found if match]


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    try:
        command = ["git", "describe", "--always", "--dirty"]
        done = subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, encoding="utf-8", timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
