"""Weights & Biases logging of a run: the figures of its local files under the same names, and its configuration."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import wandb
from pytorch_lightning.loggers import WandbLogger

from medmtl.errors import ConfigError
from medmtl.runs.folder import RunFolder

LONGEST_TAG = 64


@dataclass
class Wandb:
    """Logging to Weights & Biases, beside the local files.

    Args:
        mode: offline (files in the run folder, no account needed), online, or disabled.
        project: name of the project there.
        group: runs that belong together, such as those of an experiment; None = the name of the run folder.
        job_type: role of the run within its group, such as its arm; None = the command.
        tags: tags of the run, 1 to 64 characters each.
    """

    mode: Literal["offline", "online", "disabled"] = "offline"
    project: str = "medmtl"
    group: str | None = None
    job_type: str | None = None
    tags: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Check the tags.

        Raises:
            ConfigError: one that W&B would refuse.
        """
        for tag in self.tags:
            if not 0 < len(tag) <= LONGEST_TAG:
                raise ConfigError(f"wandb.tags names {tag!r}", fix=f"use 1 to {LONGEST_TAG} characters a tag")


def check_login(options: Wandb) -> None:
    """Check that W&B lets this machine in, before anything is computed; only where it is to be used online.

    Raises:
        ConfigError: it does not.
    """
    if options.mode != "online":
        return
    os.environ.setdefault("WANDB_SILENT", "true")
    why = "W&B knows no key of yours"
    try:
        if wandb.login(prompt=False):
            return
    except wandb.errors.Error as error:
        why = " ".join(str(error).split())
    raise ConfigError(f"wandb.mode is online, and {why}", fix="run `wandb login`, set WANDB_API_KEY, or log offline")


class RunWandbLogger(WandbLogger):
    """The W&B run of one `fit` or `test`.

    W&B cannot continue an offline run. So every part of a resumed training is a W&B run of its own, in the same group,
    with the one before it as `resumed_from` in its configuration; a test has its training as `fit`.

    Args:
        options: mode, project and names.
        run: the run folder; W&B's files go to `wandb` in it.
        command: `fit` or `test`.
        checkpoint: the checkpoint to resume from, or to test.
        config: the resolved configuration.
    """

    def __init__(
        self, options: Wandb, run: RunFolder, command: str, checkpoint: Path | None, config: Mapping[str, Any]
    ) -> None:
        os.environ.setdefault("WANDB_SILENT", "true")
        if not os.access(os.environ.get("HOME", ""), os.W_OK):  # else the log of its service fills the terminal
            os.environ.setdefault("XDG_CACHE_HOME", str(run.path.resolve() / "wandb" / "cache"))
        super().__init__(
            name=run.path.name,
            save_dir=run.path,
            project=options.project,
            mode=options.mode,  # Lightning's `offline` would set it in the environment, for all later runs
            group=options.group or run.path.name,
            job_type=options.job_type or command,
            tags=options.tags,
            config={**config, **_origin(command, checkpoint)},
        )
        self._wandb_init.pop("anonymous", None)  # wandb says at every start that it has no effect

    def record(self, run: RunFolder, command: str) -> None:
        """Add the id of the W&B run to `wandb` in `run.json`: command -> ids, the newest last."""
        run.update_manifest(wandb={**run.facts_of("wandb"), command: [*run.wandb_runs(command), self.version]})


def _origin(command: str, checkpoint: Path | None) -> dict[str, str]:
    """Which W&B run trained the checkpoint, as its run folder knows."""
    if checkpoint is None:
        return {}
    trained = RunFolder(checkpoint.resolve().parent.parent).wandb_runs("fit")
    return {"resumed_from" if command == "fit" else "fit": trained[-1]} if trained else {}
