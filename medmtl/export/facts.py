"""What the card of a model says, gathered from its run: data, training, test, and what was exported."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from medmtl.data.facts import DataFacts, data_facts
from medmtl.errors import DataError
from medmtl.files import TextError, read_json
from medmtl.results.test import SCHEMA as REPORT_SCHEMA
from medmtl.runs.folder import RunFolder
from medmtl.training.trained import Trained

logger = logging.getLogger(__name__)


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
    tasks = trained.data.trained
    patients = {name: trained.data.patients(name) for name in tasks} if opened else None
    data = data_facts(tasks, kept["splits"], patients)
    people = {
        part: parts.count(part) for part in dict.fromkeys(part for own in kept["splits"].values() for part in own)
    }
    return RunFacts(data, people, run.facts_of("fit"), _report(run, trained))


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
