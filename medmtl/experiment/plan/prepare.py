"""From a protocol to jobs: splits, configurations and fingerprints of all training runs, written before any starts."""

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import yaml

from medmtl.data.datamodule import MultiTaskData, Splits
from medmtl.data.digests import Digests
from medmtl.data.splits import cases_by_part, fewer_training_cases, fold_patients, write_splits
from medmtl.errors import DataError
from medmtl.experiment.plan.arms import find_arms
from medmtl.experiment.plan.base import read_base
from medmtl.experiment.plan.fingerprint import data_of, fingerprint, resolve
from medmtl.experiment.plan.job import RECORD, Job
from medmtl.experiment.plan.labels import ARMS_FILE, describe_arms
from medmtl.experiment.plan.planning import plan
from medmtl.experiment.plan.protocol import EVERY_CASE, Protocol
from medmtl.experiment.plan.setting import Planned, Setting
from medmtl.files import remove_others, write_text
from medmtl.runs.folder import RunFolder
from medmtl.training.outputs import with_features

logger = logging.getLogger(__name__)


def prepare(protocol: Protocol, folder: Path) -> list[Job]:
    """Plan an experiment, and write the splits and configurations that its runs need.

    Args:
        protocol: what to compare.
        folder: the experiment's folder.

    Returns:
        The training runs, each after what it starts from. A run that an earlier start finished, under whatever name,
        is found by its fingerprint.

    Raises:
        ConfigError: the protocol, one of its arms or its base cannot be used.
        DataError: the data cannot be used.
    """
    arms = find_arms(protocol.arms)
    describe_arms(arms)  # refuses what the comparison could not show
    base = read_base(protocol)
    data = data_of(base)
    data.setup("plan")
    if data.per_task:  # also in runs of one task: those that start from another have its features
        base = with_features(base, [data.labels(name).classes for name in data.trained])
    splits = _splits(protocol, data)
    paths = {key: folder / "splits" / f"{_split_name(*key)}.json" for key in splits}
    settings = [
        Setting(folder.name, protocol, base, str(paths[fold, cases]), seed, fold, cases)
        for (fold, cases) in splits
        for seed in protocol.seeds
    ]
    runs = plan(arms, settings)
    _check_finetuning(runs)
    for key, path in paths.items():
        write_splits(path, splits[key])
    split_of = {str(path): splits[key] for key, path in paths.items()}
    listed = {name: data.listed(name) for name in (*data.tasks, *data.ood)}
    with Digests(folder / "data.json") as digests:
        files = {
            name: {case.name: digests.case(case, _meaning(data, name)) for case in cases}
            for name, cases in listed.items()
        }
    jobs = _jobs(runs, folder, split_of, files)
    remove_others(folder / "configs", "*.*", {job.config for job in jobs})
    return jobs


def _meaning(data: MultiTaskData, name: str) -> str:
    """What the folder of a task declares of its label values, beside the configuration; empty without a declaration."""
    if name not in data.tasks:
        return ""
    labels = data.labels(name)
    if labels.ignore is None and labels.classes.foreground == set(data.tasks[name].organ or ()):
        return ""
    if labels.classes.merged:
        return f"organ {sorted(labels.classes.foreground)}, unknown {labels.ignore}"
    return f"{labels.classes}, unknown {labels.ignore}"


def write_plan(protocol: Protocol, folder: Path, jobs: Sequence[Job]) -> None:
    """Write the plan of an experiment: what is run, and what `medmtl compare` reads.

    Args:
        protocol: what they follow from.
        folder: the experiment's folder.
        jobs: what `prepare` gave.
    """
    for job in jobs:
        write_text(job.file, json.dumps(job.to_dict(), indent=1) + "\n")
    remove_others(folder / "jobs", "*.*", {job.file for job in jobs})
    write_text(folder / ARMS_FILE, json.dumps(describe_arms(find_arms(protocol.arms)), indent=1) + "\n")
    write_text(folder / "experiment.yaml", protocol.to_yaml())


def _splits(protocol: Protocol, data: MultiTaskData) -> dict[tuple[int | None, int | None], Splits]:
    """(fold, training cases at most) -> task -> part -> case ids."""
    used = {name: {case for cases in parts.values() for case in cases} for name, parts in data.splits.items()}
    patient_of = {
        name: {case: patient for case, patient in data.patients(name).items() if case in used[name]} for name in used
    }
    folds: dict[int | None, Splits] = {None: data.splits}
    if protocol.folds > 1:
        patients = {name: list(found.values()) for name, found in patient_of.items()}
        shares = data.fractions
        parts = fold_patients(patients, protocol.folds, shares["val"], data.split_seed, shares["calibration"])
        folds = {
            fold: {name: cases_by_part(found, part_of) for name, found in patient_of.items()}
            for fold, part_of in enumerate(parts)
        }
    for name, parts_of_task in folds.get(None, {}).items():
        if not parts_of_task["test"]:
            raise DataError(f"task {name} has no test case", fix="give data.test a share above 0, or list one")
    result: dict[tuple[int | None, int | None], Splits] = {}
    for fold, whole in folds.items():
        for size in protocol.sizes:
            if not isinstance(size, int):
                result[fold, None] = whole
                continue
            fewer = {name: fewer_training_cases(whole[name], patient_of[name], size, data.split_seed) for name in whole}
            if fewer == whole and EVERY_CASE in protocol.sizes:
                logger.warning("no task has more than %d training cases: that size is left out", size)
            else:
                result[fold, size] = fewer
    return result


def _check_finetuning(runs: list[Planned]) -> None:
    """Find a typing error in `finetune_overrides` before the pre-training runs."""
    for planned in runs:
        if planned.needs is not None:
            resolve(planned.config)
            return


def _jobs(
    runs: list[Planned], folder: Path, split_of: Mapping[str, Splits], files: Mapping[str, Mapping[str, str]]
) -> list[Job]:
    found = _finished(folder)
    jobs: dict[str, Job] = {}
    for planned in runs:
        config, start = planned.config, None
        if planned.needs is not None:
            start = jobs[planned.needs]
            finetune = {"checkpoint": str(start.run.best), "layers": planned.layers}
            config = config | {"model": config["model"] | {"finetune": finetune}}
        number = fingerprint(
            config,
            split_of[config["data"]["splits"]],
            files,
            None if start is None else start.fingerprint,
            tested=planned.cell is not None,
        )
        path = folder / "configs" / f"{planned.name}.yaml"
        write_text(path, yaml.safe_dump(config, sort_keys=False))
        jobs[planned.name] = Job(
            name=planned.name,
            folder=folder,
            # Two cells may need the same training: a limit of eight changes nothing for a task of eight cases.
            run=found.setdefault(number, RunFolder(folder / "runs" / f"{planned.name}-{number[:8]}")),
            config=path,
            steps=planned.steps,
            needs=planned.needs,
            fingerprint=number,
            cell=planned.cell,
        )
    return list(jobs.values())


def _finished(folder: Path) -> dict[str, RunFolder]:
    """Fingerprint -> the run that an earlier start finished."""
    found = {}
    for path in sorted((folder / "runs").glob("*/run.json")):
        run = RunFolder(path.parent)
        record = run.facts_of(RECORD)
        if record.get("finished"):
            found[str(record.get("fingerprint"))] = run
    return found


def _split_name(fold: int | None, cases: int | None) -> str:
    parts = ["split"] if fold is None else [f"fold{fold}"]
    return "-".join(parts + ([] if cases is None else [f"{cases}cases"]))
