"""A stranger's run: a good one whose checkpoints and configuration were changed, beside modules that leave a trace."""

import shutil
from pathlib import Path
from typing import Any

import torch
import yaml

from medmtl.runs.checkpoint import CHECKPOINT_KEY
from medmtl.runs.folder import RunFolder

GOOD = Path(__file__).parent / "fixtures" / "old-0.1"
MARKER = "marker"  # a file that the stranger's code would write
MODULE = "strangers"  # a module that lies beside the checkpoint, and in the current folder


def with_key(text: str, key: str, value: Any) -> str:
    """The text of a configuration with a key set to a value, such as `data.tasks.LiverCT.root`."""
    config = yaml.safe_load(text)
    *parents, last = key.replace("data.ood", "data.foreign").split(".")
    place = config
    for parent in parents:
        place = place.setdefault(parent, {})
    place[last] = value
    return yaml.safe_dump(config)


def strangers_run(folder: Path, *changes: tuple[str, Any]) -> RunFolder:
    """A run in a folder whose configurations have keys set to values, in both checkpoints and in the file.

    Args:
        folder: the current folder; modules and configurations that leave `MARKER` in it lie there and in the run.
        changes: keys and values.
    """
    run = RunFolder(shutil.copytree(GOOD, folder / "run"))
    texts = {path: torch.load(path, weights_only=True) for path in (run.best, run.last)}
    for key, value in changes:
        for checkpoint in texts.values():
            checkpoint[CHECKPOINT_KEY] = with_key(checkpoint[CHECKPOINT_KEY], key, value)
        run.config.write_text(with_key(run.config.read_text(), key, value))
    for path, checkpoint in texts.items():
        torch.save(checkpoint, path)
    for place in (folder, run.path, run.checkpoints):
        (place / f"{MODULE}.py").write_text(f"open({MARKER!r}, 'w')\n")
        (place / MODULE).write_text(f"class_path: {MODULE}.Part\n")
        (place / f"{MODULE}.yaml").write_text(f"class_path: {MODULE}.Part\n")
    return run
