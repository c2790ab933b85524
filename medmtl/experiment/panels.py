"""The content of an experiment's dashboard: sections of panels over the metrics that every run logs."""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from medmtl.data.task import has_heads
from medmtl.errors import RunError
from medmtl.experiment.plan.labels import ARMS_FILE, read_arms
from medmtl.files import parse_yaml, read_json, read_text
from medmtl.quantity import Quantity
from medmtl.results.compared import COMPARED
from medmtl.typed import typed

CALIBRATION = ("ace_band", "ece_band")
PAIRS, DIFFERENCES = "compare/pairs", "compare/forest-dice"  # what `medmtl compare` logs


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        kind: bars: last values, a bar an arm, the mean over its runs with their standard deviation. curves: values by
            optimizer step, a line an arm. images: pictures of every run. table: the newest table of that name.
        title: its title.
        keys: the logged metrics that it shows.
    """

    kind: Literal["bars", "curves", "images", "table"]
    title: str
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Section:
    """Panels that belong together.

    Attributes:
        name: title of the section.
        panels: from left to right and top to bottom.
    """

    name: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True)
class Dashboard:
    """A dashboard as JSON can hold it.

    Attributes:
        entity: user or team of W&B.
        project: its project.
        name: name of the saved view.
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
        """The dashboard that `to_json` gave.

        Raises:
            ValueError: it is something else.
        """
        return typed(cls, json.loads(text), "the dashboard")

    @property
    def keys(self) -> set[str]:
        """Every metric that a panel shows."""
        return {key for section in self.sections for panel in section.panels for key in panel.keys}


def describe(
    entity: str,
    project: str,
    tasks: Sequence[str],
    experiment: str | None = None,
    arms: Sequence[str] = (),
    own: Iterable[Quantity] = (),
    classes: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Dashboard:
    """The comparison of the arms on the given tasks.

    Args:
        entity: user or team of W&B.
        project: its project.
        tasks: names of the tasks; without any, only their mean is shown.
        experiment: the W&B group to show; None for all groups.
        arms: their labels, for the name of the view; without any it names the usual ones.
        own: calibration metrics of a user's own that the arms are compared by.
        classes: task with several -> its classes, which get a section of their own.
    """
    rows = [*tasks, "mean"]
    accuracy = [_bars(row, COMPARED["dice"]) for row in rows]
    calibration = [_bars(row, metric) for metric in (*map(COMPARED.__getitem__, CALIBRATION), *own) for row in rows]
    by_class = [_bars(f"{task}/{name}", COMPARED["dice"]) for task, names in classes.items() for name in names]
    training = [
        Panel("curves", "training loss", ("train/loss",)),
        Panel("curves", "validation Dice, mean over tasks", ("val/mean/dice",)),
    ]
    detection = [
        Panel("bars", "AUROC of the score that gives the verdict", ("test/ood/verdict/auroc",)),
        Panel("bars", "in-distribution cases rejected, lower is better", ("test/ood/verdict/false_alarm_rate",)),
        Panel("bars", "out-of-distribution cases rejected", ("test/ood/verdict/detection_rate",)),
        Panel("images", "ROC of every score", ("test/roc",)),
    ]
    scaled = [
        Panel("bars", f"mean: {metric.axis}, before and after scaling", (key, f"{key}_scaled"))
        for metric in map(COMPARED.__getitem__, CALIBRATION)
        for key in [f"test/mean/{metric.key}"]
    ]
    arms_compared = [
        Panel("table", "differences of arms with intervals", (PAIRS,)),
        Panel("images", "differences of arms in Dice", (DIFFERENCES,)),
    ]
    reliability = [
        Panel("images", "test cases, organ band", ("test/reliability-band",)),
        Panel("images", "validation cases during training, organ band", ("val/reliability_band",)),
    ]
    return Dashboard(
        entity,
        project,
        f"{experiment or 'medmtl'}: {', '.join(arms) or 'dedicated, transfer and multi-task'}",
        (
            Section("Accuracy of the test cases by arm", tuple(accuracy)),
            *([Section("Accuracy of the classes by arm", tuple(by_class))] if by_class else []),
            Section("Calibration over the organ band by arm", tuple(calibration)),
            Section("Calibration before and after scaling", tuple(scaled)),
            Section("Detection of out-of-distribution cases", tuple(detection)),
            Section("Test cases", (Panel("table", "every test case, with its picture", ("test/cases",)),)),
            *([Section("Differences of arms", tuple(arms_compared))] if experiment else []),
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
    configs = [_config(path) for path in sorted((folder / "configs").glob("*.yaml"))]
    if not configs:
        raise RunError(f"{folder} holds no experiment", fix="run `medmtl experiment`, or name its folder with --run")
    try:
        configs.sort(key=lambda config: -len(config["data"]["tasks"]))  # the union first: it has all tasks in order
        tasks = dict.fromkeys(str(task) for config in configs for task in config["data"]["tasks"])
        tags = {tag for config in configs if _cases(config) < max(map(_cases, configs)) for tag in _sizes(config)}
        group = configs[0]["wandb"]["group"]
        group = None if group is None else typed(str, group, "wandb.group")
        apart = [_told_apart(config) for config in configs]
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{folder / 'configs'} holds a configuration of no training run ({error})"
        raise RunError(reason, fix="start `medmtl experiment` again") from None
    labels = [about["label"] for about in read_arms(folder / ARMS_FILE).values()]
    classes, own = _compared(apart, folder / "compare" / "compare.json")
    dashboard = describe(entity, project, list(tasks), group, labels, own, classes)
    return replace(dashboard, without_tags=tuple(sorted(tags)))


def _config(path: Path) -> Any:
    try:
        return parse_yaml(read_text(path))
    except ValueError as error:
        raise RunError(f"{path} is not YAML ({error})", fix="start `medmtl experiment` again") from None


def _bars(row: str, metric: Quantity) -> Panel:
    """A metric of a task, or of the mean over tasks, by arm."""
    direction = "" if metric.higher_is_better else ", lower is better"
    return Panel("bars", f"{row}: {metric.axis}{direction}", (f"test/{row}/{metric.key}",))


def _compared(
    apart: Iterable[Mapping[str, list[str] | None]], file: Path
) -> tuple[dict[str, list[str]], list[Quantity]]:
    """Classes by task, see `_classes`, and a user's own calibration metrics, as far as an earlier comparison has them.

    Raises:
        RunError: the file holds no comparison.
    """
    try:
        compared = typed(dict[str, Any], read_json(file)) if file.is_file() else {}
        known = typed(dict[str, dict[str, Any]], compared.get("classes", {}))
        metrics = typed(dict[str, dict[str, Any]], compared.get("metrics", {}))
        own = {key: {"key": key, **about} for key, about in metrics.items() if key not in COMPARED}
        return _classes(apart, known), [typed(Quantity, about, key) for key, about in own.items()]
    except ValueError as error:
        raise RunError(f"{file} is no comparison ({error})", fix="run `medmtl compare` again") from None


def _told_apart(config: Mapping[str, Any]) -> dict[str, list[str] | None]:
    """Task -> its classes, where a run tells those of a task apart; None where it has `all` of a dataset.

    Raises:
        KeyError, ValueError: it is no configuration.
    """
    tasks = typed(dict[str, dict[str, Any]], config["data"]["tasks"], "data.tasks")
    given = {name: task.get("classes") for name, task in tasks.items()}
    for classes in given.values():
        if not (classes in (None, "all") or isinstance(classes, dict | list)):
            raise ValueError(f"classes {classes!r}")
    if not has_heads(typed(dict[str, Any], config.get("model", {}), "model").get("outputs"), given.values()):
        return {}
    return {
        name: None if classes == "all" else [str(each) for each in classes or ()] for name, classes in given.items()
    }


def _classes(
    apart: Iterable[Mapping[str, list[str] | None]], known: Mapping[str, Mapping[str, Any]]
) -> dict[str, list[str]]:
    """Task -> its classes, of those with several that some run tells apart.

    Where a configuration has `all` of a dataset, they are those of an earlier comparison.
    """
    found: dict[str, list[str]] = {}
    for run in apart:
        for task, classes in run.items():
            names = list(known.get(task, ())) if classes is None else classes
            found |= {task: names} if len(names) > 1 else {}
    return found


def _cases(config: dict[str, Any]) -> float:
    """Training cases a task at most, by the tag of the run."""
    return min((float(tag.removesuffix("cases")) for tag in _sizes(config)), default=math.inf)


def _sizes(config: dict[str, Any]) -> list[str]:
    return [tag for tag in config["wandb"]["tags"] if re.fullmatch(r"\d+cases", tag)]
