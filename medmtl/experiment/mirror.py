"""The comparison of an experiment as a W&B run in its group: the tables and figures of `compare`, under `compare/`."""

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from medmtl.errors import ConfigError
from medmtl.experiment.analysis.compare import arm_rows, pair_rows
from medmtl.experiment.panels import PAIRS
from medmtl.runs.loggers import staged_in, wandb_table
from medmtl.runs.wandb import Wandb
from medmtl.training.config_files import read_yaml
from medmtl.typed import typed

JOB = "comparison"  # its role among the runs of an experiment, whose others are arms
ARMS = "compare/arms"


def log_comparison(folder: Path, comparison: Mapping[str, Any]) -> None:
    """Log a comparison in the mode of the experiment's runs; one that is logged again is the same W&B run.

    Args:
        folder: the experiment, whose `compare` holds the figures.
        comparison: what `compare.json` holds.

    Raises:
        ConfigError: the runs are logged online, and W&B does not take it; or their configuration is damaged.
    """
    options = _options(folder)
    if options is None or options.mode == "disabled":
        return
    import wandb

    os.environ.setdefault("WANDB_SILENT", "true")
    name = f"{options.group or folder.name}-{JOB}"
    try:
        run = wandb.init(
            project=options.project,
            mode=options.mode,
            group=options.group,
            job_type=JOB,
            name=name,
            id=re.sub(r"[^\w-]", "_", name)[:128],
            resume="allow" if options.mode == "online" else None,
            dir=folder / "compare",
        )
        try:
            figures = sorted((folder / "compare" / "figures").glob("*.png"))
            pictures = {f"compare/{path.stem}": wandb.Image(str(path)) for path in figures}
            with staged_in(folder / "compare"):
                run.log({ARMS: _table(arm_rows(comparison)), PAIRS: _table(pair_rows(comparison)), **pictures})
        finally:
            run.finish()
    except wandb.errors.Error as error:
        why = " ".join(str(error).split())
        raise ConfigError(f"W&B does not take the comparison ({why})", fix="set wandb.mode to offline") from None


def _options(folder: Path) -> Wandb | None:
    """How the runs of the experiment are logged; None where there is no configuration of one."""
    for path in sorted((folder / "configs").glob("*.yaml")):
        given = read_yaml(path).get("wandb") or {}
        try:
            return typed(Wandb, {key: given[key] for key in ("mode", "project", "group") if key in given}, "wandb")
        except (TypeError, ValueError) as error:
            raise ConfigError(f"{path}: wandb is no section of options ({error})", fix="correct it") from None
    return None


def _table(rows: Sequence[Mapping[str, Any]]) -> Any:
    keys = dict.fromkeys(key for row in rows for key in row)
    return wandb_table([{key: row.get(key) for key in keys} for row in rows] or [{"task": ""}])
