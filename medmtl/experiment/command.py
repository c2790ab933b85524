"""The commands `medmtl experiment` and `medmtl compare`."""

import argparse
import re
import sys
from pathlib import Path

from jsonargparse import ArgumentError, ArgumentParser
from rich.table import Column, Table

from medmtl.errors import ConfigError, RunError
from medmtl.experiment.analysis.compare import print_comparison, write_compare
from medmtl.experiment.plan.arms import find_arms
from medmtl.experiment.plan.base import check_saved
from medmtl.experiment.plan.job import Job
from medmtl.experiment.plan.prepare import prepare, write_plan
from medmtl.experiment.plan.protocol import Protocol
from medmtl.experiment.run.launchers import ClusterLauncher, Launcher, LocalLauncher
from medmtl.experiment.run.progress import view_for
from medmtl.experiment.run.runner import only_runner, run_jobs
from medmtl.renamed import with_new_names
from medmtl.runs.folder import RUNS
from medmtl.terminal import terminal
from medmtl.training.config_files import find_config, read_yaml
from medmtl.training.trust import TRUST_HELP, use_current_folder

DESCRIPTION = (
    "Compare dedicated, transfer and multi-task training, and arms of your own. Every training run is a plain "
    "configuration that is written to disk before it runs; runs that are finished are not repeated, so it is safe to "
    "stop and start again. Ends with the comparison in runs/NAME/compare, NAME being that of the configuration. --run "
    "without --config goes on with the experiment in that folder, of which only arms of medmtl and classes of medmtl, "
    "MONAI and torch are used, unless --trust is given."
)

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
    outcome = run_jobs(jobs, launcher, protocol.at_once, view_for(console))
    if any(job.cell is not None and job.finished for job in jobs):
        compare_command([str(folder)])
    if outcome.failed or outcome.skipped:
        reasons = [f"{name}: {reason}" for name, reason in {**outcome.failed, **outcome.skipped}.items()]
        named = "; ".join(reasons[:NAMED]) + (f"; and {len(reasons) - NAMED} more" if len(reasons) > NAMED else "")
        raise RunError(
            f"{len(reasons)} of {len(jobs)} training runs did not finish ({named})",
            fix="correct what the logs report, and run the same command again",
        )


def compare_command(argv: list[str]) -> None:
    """Compare the finished runs of an experiment, without training.

    Args:
        argv: what follows `medmtl compare`.

    Raises:
        RunError: no run is finished.
    """
    parser = argparse.ArgumentParser(
        prog="medmtl compare",
        description="Tables, statistics, figures and one page of an experiment's finished runs, into FOLDER/compare; "
        "nothing is trained.",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the experiment, such as runs/experiment")
    parser.add_argument("--level", type=float, default=0.05, help="level of the tests (default: 0.05)")
    options = parser.parse_args(argv)
    if not 0 < options.level < 1:
        raise ConfigError(f"--level={options.level}", fix="use a probability between 0 and 1, such as 0.05")
    comparison, page = write_compare(options.folder, options.level)
    console = terminal()
    print_comparison(console, comparison)
    console.print(f"comparison: {page}", soft_wrap=True)


def _parse(argv: list[str]) -> tuple[Protocol, Path, bool]:
    parser = ArgumentParser(prog="medmtl experiment", description=DESCRIPTION, exit_on_error=False)
    parser.add_argument("--config", action="config", help="the experiment: a file, or the bare name of a shipped one")
    parser.add_argument("--run", type=str | None, default=None, help="its folder, or in a configuration its name")
    parser.add_argument("--dry-run", action="store_true", help="write the configurations, list them and stop")
    parser.add_argument("--trust", action="store_true", help=f"without --config: {TRUST_HELP}")
    parser.add_class_arguments(Protocol)
    own = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    own.add_argument("-c", "--config")
    own.add_argument("--run")
    own.add_argument("--trust", action="store_true")
    options, flags = own.parse_known_args(argv)
    if {"-h", "--help"} & set(flags):
        sys.stdout.write(re.sub(r"--\w+", lambda flag: flag[0].replace("_", "-"), parser.format_help()))
        raise SystemExit(0)
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
        chosen = {key: value for key, value in parsed.items() if key not in ("config", "run", "dry_run", "trust")}
        folder = Path(options.run) if options.run else RUNS / Path(parsed.run or config.stem).name
        # A key without a value, all its lines commented out, gets its default.
        protocol = Protocol(**{key: value for key, value in chosen.items() if value is not None})
    except ArgumentError as error:
        raise ConfigError(" ".join(str(error).split())) from None
    return protocol, folder, parsed.dry_run


def _table(jobs: list[Job]) -> Table:
    names = [Column(title, overflow="fold") for title in ("training run", "starts from")]
    table = Table(*names, "steps", "tested", "state")
    for job in jobs:
        tested = "yes" if job.cell is not None else "no"
        table.add_row(job.name, job.needs or "", f"{job.steps:,}", tested, "finished" if job.finished else "to run")
    return table
