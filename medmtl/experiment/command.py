"""The commands `medmtl experiment` and `medmtl compare`."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from jsonargparse import ArgumentError, ArgumentParser
from rich.table import Column, Table

from medmtl.commands.flags import flags_of
from medmtl.errors import ConfigError, MedMTLError, RunError
from medmtl.experiment.analysis.compare import print_comparison, write_compare
from medmtl.experiment.mirror import log_comparison
from medmtl.experiment.plan.arms import find_arms
from medmtl.experiment.plan.base import check_saved
from medmtl.experiment.plan.job import Job
from medmtl.experiment.plan.prepare import prepare, write_plan
from medmtl.experiment.plan.protocol import Protocol
from medmtl.experiment.run.launchers import ClusterLauncher, Launcher, LocalLauncher
from medmtl.experiment.run.progress import view_for
from medmtl.experiment.run.runner import Outcome, only_runner, run_jobs
from medmtl.renamed import with_new_names
from medmtl.runs.folder import RUNS
from medmtl.terminal import terminal
from medmtl.training.config_files import find_config, read_yaml
from medmtl.training.trust import use_current_folder

logger = logging.getLogger(__name__)

WIDE = 160  # columns of the table of runs where the output is no terminal
NAMED = 5  # failed runs that the last line names


def run_experiment(argv: list[str]) -> None:
    """Run all that is not finished of an experiment, and compare.

    Args:
        argv: what follows `medmtl experiment`.

    Raises:
        MedMTLError: for what the user can correct, and at the end if a training run failed.
    """
    protocol, folder, dry = _parse(argv)
    find_arms(protocol.arms)  # a wrong name leaves no folder behind
    with only_runner(folder):
        _run(protocol, folder, dry)


def _run(protocol: Protocol, folder: Path, dry: bool) -> None:
    saved = folder / "experiment.yaml"
    before = read_yaml(saved)["base"] if saved.is_file() else protocol.base
    if before != protocol.base:  # runs on other data would end in one table
        raise RunError(f"{folder} holds an experiment on {before}", fix="add --run FOLDER to start another")
    jobs = prepare(protocol, folder)
    console = terminal()
    if dry:
        wide = terminal(width=None if console.is_terminal else WIDE)
        wide.print(_table(jobs))
        console.print(f"{len(jobs):,} training runs, {sum(job.steps for job in jobs):,} optimizer steps")
        console.print(f"configurations: {folder / 'configs'}", soft_wrap=True)
        return
    write_plan(protocol, folder, jobs)
    launcher: Launcher = LocalLauncher(protocol.at_once)
    if protocol.launcher == "slurm":
        launcher = ClusterLauncher(folder, protocol.cluster)
    _conclude(folder, jobs, run_jobs(jobs, launcher, protocol.at_once, view_for(console)))


def _conclude(folder: Path, jobs: Sequence[Job], outcome: Outcome) -> None:
    """Compare what is finished, and say in the end what is not, whatever becomes of the comparison."""
    failure = _failure(len(jobs), {**outcome.failed, **outcome.skipped})
    try:
        if any(job.cell is not None and job.finished for job in jobs):
            compare(folder)
    except (MedMTLError, OSError) as error:
        if failure is None:
            raise
        logger.warning("%s", error)
    if failure is not None:
        raise failure


def _failure(jobs: int, reasons: Mapping[str, str]) -> RunError | None:
    if not reasons:
        return None
    each = [f"{name}: {reason}" for name, reason in reasons.items()]
    named = "; ".join(each[:NAMED]) + (f"; and {len(each) - NAMED} more" if len(each) > NAMED else "")
    return RunError(
        f"{len(each)} of {jobs} training runs did not finish ({named})",
        fix="correct what the logs report, and run the same command again",
    )


def compare(folder: Path, level: float = 0.05) -> None:
    """Compare the finished runs of an experiment, without training.

    Args:
        folder: the experiment.
        level: of the tests.

    Raises:
        ConfigError: the level is no probability.
        RunError: no run is finished.
    """
    if not 0 < level < 1:
        raise ConfigError(f"--level={level}", fix="use a probability between 0 and 1, such as 0.05")
    comparison, page = write_compare(folder, level)
    console = terminal()
    print_comparison(console, comparison)
    console.print(f"comparison: {page}", soft_wrap=True)
    log_comparison(folder, comparison)


def _parse(argv: list[str]) -> tuple[Protocol, Path, bool]:
    parser = ArgumentParser(prog="medmtl experiment", exit_on_error=False)
    parser.add_argument("--config", action="config")
    parser.add_argument("--run", type=str | None, default=None)
    parser.add_class_arguments(Protocol)
    options, flags = flags_of("experiment").parse_known_args(argv)
    if not (options.config or options.run):
        raise ConfigError("no experiment is named", fix="add --config, for example --config experiment-quick.yaml")
    saved = Path(options.run or "") / "experiment.yaml"
    if options.run and not options.config and not saved.is_file():
        raise RunError(f"{options.run} holds no experiment", fix="add --config")
    config = find_config(options.config) if options.config else saved
    content = with_new_names(read_yaml(config), str(config))
    trusted = bool(options.config or options.trust)
    use_current_folder(None if trusted else flags)
    if not trusted:
        check_saved(content, config)  # the parser imports what `overrides` names
    try:
        parsed = parser.parse_args(flags, namespace=parser.parse_object(content))
        chosen = {key: value for key, value in parsed.items() if key not in ("config", "run")}
        folder = Path(options.run) if options.run else RUNS / Path(parsed.run or config.stem).name
        # A key without a value, all its lines commented out, gets its default.
        protocol = Protocol(**{key: value for key, value in chosen.items() if value is not None})
    except ArgumentError as error:
        raise ConfigError(" ".join(str(error).split())) from None
    return protocol, folder, options.dry_run


def _table(jobs: list[Job]) -> Table:
    names = [Column(title, overflow="fold") for title in ("training run", "starts from")]
    table = Table(*names, "steps", "tested", "state")
    for job in jobs:
        tested = "yes" if job.cell is not None else "no"
        table.add_row(job.name, job.needs or "", f"{job.steps:,}", tested, "finished" if job.finished else "to run")
    return table
