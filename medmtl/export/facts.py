"""What the card of a model says, gathered from its run: data, training, test, and what was exported."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medmtl.data.task import Task, resolve_root
from medmtl.errors import DataError
from medmtl.files import TextError, read_json
from medmtl.results.test import SCHEMA as REPORT_SCHEMA
from medmtl.runs.folder import RunFolder
from medmtl.training.trained import Trained

logger = logging.getLogger(__name__)

UNKNOWN = "not stated by the data set"


@dataclass(frozen=True)
class DataFacts:
    """The data of a task.

    Attributes:
        licence: as the data set states it.
        reference: likewise.
        images: part of the split -> images.
        patients: part of the split -> patients; empty where the data could not be read when the run was exported.
        organ: what is segmented, in words.
    """

    licence: str
    reference: str
    images: Mapping[str, int]
    patients: Mapping[str, int]
    organ: str


@dataclass(frozen=True)
class RunFacts:
    """What is known of a run.

    Attributes:
        data: of each task.
        people: part of the split -> patients of all tasks together, each counted once.
        fit: what `run.json` says of the training.
        report: what `report.json` says of the test; empty for a run that was not tested, or calibrated again since.
    """

    data: Mapping[str, DataFacts]
    people: Mapping[str, int]
    fit: Mapping[str, Any]
    report: Mapping[str, Any]


def run_facts(run: RunFolder, trained: Trained) -> RunFacts:
    """Gather what is known of a run; its data are read where they are still there."""
    try:
        trained.open_data()
        opened = True
    except DataError as error:
        logger.warning("the card does not count the patients of each task: %s", error.what)
        opened = False
    kept = trained.checkpoint[type(trained.data).__qualname__]
    parts = list(kept["patients"].values())
    data = {
        name: _data(name, task, kept["splits"][name], trained, opened) for name, task in trained.data.trained.items()
    }
    people = {
        part: parts.count(part) for part in dict.fromkeys(part for own in kept["splits"].values() for part in own)
    }
    return RunFacts(data, people, run.facts_of("fit"), _report(run, trained))


def _data(name: str, task: Task, split: Mapping[str, list[str]], trained: Trained, opened: bool) -> DataFacts:
    patients = trained.data.patients(name) if opened else {}
    of_part = {part: len({patients[case] for case in cases}) for part, cases in split.items()} if opened else {}
    declared = _declared(name, task)
    organ = ", ".join(task.class_names or ()) or f"labels {', '.join(map(str, task.organ or []))} as one"
    return DataFacts(
        licence=_text(declared.get("licence", declared.get("license"))) or UNKNOWN,
        reference=_text(declared.get("reference")) or UNKNOWN,
        images={part: len(cases) for part, cases in split.items()},
        patients=of_part,
        organ=organ,
    )


def _declared(name: str, task: Task) -> dict[str, Any]:
    """What the `dataset.json` of a task says; nothing where there is none."""
    try:
        found = read_json(resolve_root(name, task.root) / "dataset.json")
    except (DataError, OSError, ValueError, TextError):
        return {}
    return found if isinstance(found, dict) else {}


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, ensure_ascii=False)


def _report(run: RunFolder, trained: Trained) -> dict[str, Any]:
    """What the test of a run measured, if its verdicts were those of the checkpoint."""
    try:
        found = read_json(run.report / "report.json")
        tested = found["ood"]["verdict"]["threshold"]
    except (OSError, ValueError, TextError, KeyError, TypeError):
        return {}
    if found.get("schema") != REPORT_SCHEMA:
        logger.warning("%s is of another version of medmtl: run `medmtl test` again", run.report)
        return {}
    detector = trained.spectral.ood_detector
    own = detector.rule.threshold if detector is not None and detector.rule.decides else None
    if tested != own:
        logger.warning("%s is of another threshold than the checkpoint: run `medmtl test` again", run.report)
        return {}
    return dict(found)
