"""What the dashboard of an experiment shows, in plain words: sections of panels over the names that every run logs."""

import json
import math
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from medmtl.errors import RunError
from medmtl.results.compared import COMPARED

CALIBRATION = ("ace_band", "ece_band")


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        kind: bars: last values, a bar an arm, the mean over its runs with their standard deviation. curves: values by
            optimizer step, a line an arm. images: pictures of every run.
        title: what is written above it.
        keys: what it shows, by the names that runs log.
    """

    kind: Literal["bars", "curves", "images"]
    title: str
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """Panels that belong together.

    Attributes:
        name: what is written above them.
        panels: from left to right and top to bottom.
    """

    name: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Dashboard:
    """A dashboard in plain words, which JSON can hold.

    Attributes:
        entity: user or team of W&B.
        project: its project.
        name: what the saved view is called.
        sections: from top to bottom.
        experiment: the W&B group whose runs are shown; None for all groups.
        without_tags: runs with one of these tags are left out.
        url: address of the saved view; None before it is published.
    """

    entity: str
    project: str
    name: str
    sections: tuple[Section, ...]
    experiment: str | None = None
    without_tags: tuple[str, ...] = ()
    url: str | None = None

    def to_json(self) -> str:
        """The text of `dashboard.json`."""
        return json.dumps(asdict(self), indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Dashboard":
        """The dashboard that `to_json` gave."""
        state = json.loads(text)
        sections = [
            Section(
                section["name"], tuple(Panel(**{**panel, "keys": tuple(panel["keys"])}) for panel in section["panels"])
            )
            for section in state["sections"]
        ]
        return cls(**{**state, "sections": tuple(sections), "without_tags": tuple(state["without_tags"])})

    @property
    def keys(self) -> set[str]:
        """Every name that a panel shows."""
        return {key for section in self.sections for panel in section.panels for key in panel.keys}


def describe(entity: str, project: str, tasks: Sequence[str], experiment: str | None = None) -> Dashboard:
    """The comparison of the arms on the given tasks.

    Args:
        entity: user or team of W&B.
        project: its project.
        tasks: names of the tasks; without any, only their mean is shown.
        experiment: the W&B group to show; None for all groups.
    """
    rows = [*tasks, "mean"]
    accuracy = [Panel("bars", f"{row}: Dice", (f"test/{row}/dice",)) for row in rows]
    calibration = [
        Panel("bars", f"{row}: {COMPARED[metric].label}", (f"test/{row}/{metric}",))
        for metric in CALIBRATION
        for row in rows
    ]
    training = [
        Panel("curves", "training loss", ("train/loss",)),
        Panel("curves", "validation Dice, mean over tasks", ("val/mean/dice",)),
    ]
    reliability = [
        Panel("images", "test cases, organ band", ("test/reliability-band",)),
        Panel("images", "validation cases during training, organ band", ("val/reliability_band",)),
    ]
    return Dashboard(
        entity,
        project,
        f"{experiment or 'medmtl'}: dedicated, transfer and multi-task",
        (
            Section("Accuracy of the test cases by arm", tuple(accuracy)),
            Section("Calibration over the organ band by arm, lower is better", tuple(calibration)),
            Section("Training", tuple(training)),
            Section("Reliability diagrams", tuple(reliability)),
        ),
        experiment,
    )


def describe_experiment(entity: str, project: str, folder: Path) -> Dashboard:
    """The comparison of the arms of an experiment, over its runs with the most training cases.

    Args:
        entity: user or team of W&B.
        project: its project.
        folder: the experiment's folder.

    Raises:
        RunError: the folder holds no experiment.
    """
    configs = [yaml.safe_load(path.read_text()) for path in sorted((folder / "configs").glob("*.yaml"))]
    if not configs:
        raise RunError(f"{folder} holds no experiment", fix="run `medmtl experiment`, or name its folder with --run")
    configs.sort(key=lambda config: -len(config["data"]["tasks"]))  # the union first: it has all tasks in order
    tasks = dict.fromkeys(task for config in configs for task in config["data"]["tasks"])
    tags = {tag for config in configs if _cases(config) < max(map(_cases, configs)) for tag in _sizes(config)}
    dashboard = describe(entity, project, list(tasks), configs[0]["wandb"]["group"])
    return replace(dashboard, without_tags=tuple(sorted(tags)))


def _cases(config: dict[str, Any]) -> float:
    """Training cases a task at most, by the tag of the run."""
    return min((float(tag.removesuffix("cases")) for tag in _sizes(config)), default=math.inf)


def _sizes(config: dict[str, Any]) -> list[str]:
    return [tag for tag in config["wandb"]["tags"] if re.fullmatch(r"\d+cases", tag)]
