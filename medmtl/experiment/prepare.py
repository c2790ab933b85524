"""From a protocol to jobs: splits, configurations and fingerprints of all training runs, written before any starts."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from medmtl.data.datamodule import MultiTaskData, Splits
from medmtl.data.splits import cases_by_part, fewer_training_cases, fold_patients, write_splits
from medmtl.errors import ConfigError
from medmtl.experiment.arms import Planned, Setting, plan, with_overrides
from medmtl.experiment.fingerprint import Digests, data_of, fingerprint, resolve
from medmtl.experiment.job import Job
from medmtl.experiment.protocol import EVERY_CASE, Protocol
from medmtl.files import write_text
from medmtl.request import find_config
from medmtl.run import RunFolder

logger = logging.getLogger(__name__)


def prepare(protocol: Protocol, folder: Path) -> list[Job]:
    """Plan an experiment and write everything that its runs need.

    Args:
        protocol: what to compare.
        folder: the experiment's folder; gets `experiment.yaml`, `splits/`, `configs/` and `jobs/`.

    Returns:
        The training runs, each after what it starts from. A run that an earlier start finished, under whatever name,
        is found by its fingerprint and not planned again.

    Raises:
        ConfigError: the protocol or its base cannot be used.
        DataError: the data cannot be used.
    """
    base = resolve(_base(protocol))
    data = data_of(base)
    data.setup("plan")
    splits = _splits(protocol, data)
    paths = {key: folder / "splits" / f"{_split_name(*key)}.json" for key in splits}
    runs = plan(
        Setting(folder.name, protocol, base, str(paths[fold, cases]), seed, fold, cases)
        for (fold, cases) in splits
        for seed in protocol.seeds
    )
    _check_finetuning(runs)
    for key, path in paths.items():
        write_splits(path, splits[key])
    split_of = {str(path): splits[key] for key, path in paths.items()}
    digests = Digests(folder / "data.json")
    sources = {name: data.listed(name) for name in (*data.tasks, *data.foreign)}
    files = {name: {case.name: digests.case(case) for case in cases} for name, cases in sources.items()}
    digests.save()
    jobs = _jobs(runs, folder, split_of, files)
    for kind, suffix in (("configs", "yaml"), ("jobs", "json")):
        for stale in set((folder / kind).glob(f"*.{suffix}")) - {
            folder / kind / f"{job.name}.{suffix}" for job in jobs
        }:
            stale.unlink()
    for job in jobs:
        write_text(job.file, json.dumps(job.to_dict(), indent=1) + "\n")
    write_text(folder / "experiment.yaml", protocol.to_yaml())
    return jobs


def _base(protocol: Protocol) -> dict[str, Any]:
    """The base configuration with the overrides, without what an experiment decides."""
    path = find_config(protocol.base)
    try:
        content = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML ({' '.join(str(error).split())})", fix="correct it") from None
    if not isinstance(content, dict) or not isinstance(content.get("data"), dict):
        raise ConfigError(f"{path} is no configuration of `medmtl fit`", fix="name one as the base")
    base = with_overrides({key: value for key, value in content.items() if key != "run"}, protocol.overrides)
    held_out = base["data"].pop("held_out", None) or []
    base["data"]["tasks"] = {name: task for name, task in base["data"]["tasks"].items() if name not in held_out}
    return base


def _splits(protocol: Protocol, data: MultiTaskData) -> dict[tuple[int | None, int | None], Splits]:
    """(fold, training cases at most) -> task -> part -> case ids."""
    patient_of = {name: data.patients(name) for name in data.tasks}
    folds: dict[int | None, Splits] = {None: data.splits}
    if protocol.folds > 1:
        patients = {name: list(found.values()) for name, found in patient_of.items()}
        parts = fold_patients(patients, protocol.folds, data.fractions["val"], data.split_seed)
        folds = {
            fold: {name: cases_by_part(found, part_of) for name, found in patient_of.items()}
            for fold, part_of in enumerate(parts)
        }
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
    """Find a typing error in `finetune_overrides` before the pre-training is paid for."""
    for planned in runs:
        if planned.needs is not None:
            resolve(planned.config)
            return


def _jobs(
    runs: list[Planned], folder: Path, split_of: Mapping[str, Splits], files: Mapping[str, Mapping[str, str]]
) -> list[Job]:
    finished = _finished(folder)
    jobs: dict[str, Job] = {}
    for planned in runs:
        config, source = planned.config, None
        if planned.needs is not None:
            source = jobs[planned.needs]
            start = {"checkpoint": str(source.run.best), "layers": planned.layers}
            config = config | {"model": config["model"] | {"finetune": start}}
        number = fingerprint(
            config,
            split_of[config["data"]["splits"]],
            files,
            None if source is None else source.fingerprint,
            tested=planned.cell is not None,
        )
        path = folder / "configs" / f"{planned.name}.yaml"
        write_text(path, yaml.safe_dump(config, sort_keys=False))
        jobs[planned.name] = Job(
            name=planned.name,
            folder=folder,
            run=finished.get(number) or RunFolder(folder / "runs" / f"{planned.name}-{number[:8]}"),
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
        record = run.read_manifest().get("experiment", {})
        if record.get("finished"):
            found[record["fingerprint"]] = run
    return found


def _split_name(fold: int | None, cases: int | None) -> str:
    parts = ["split"] if fold is None else [f"fold{fold}"]
    return "-".join(parts + ([] if cases is None else [f"{cases}cases"]))
