"""The command `medmtl`: a fast front door that imports what a command needs when it is called."""

import sys
from collections.abc import Callable, Sequence

from medmtl.errors import ConfigError, reported
from medmtl.version import __version__


def main(args: Sequence[str] | None = None) -> None:
    """Run a command.

    Args:
        args: what follows `medmtl` on the command line; taken from there if None.

    Raises:
        SystemExit: 1 after an error, 2 after wrong usage; each is one line on standard error. 3 where all was done but
            some input cannot be used, or is foreign where that was to count.
    """
    argv = list(sys.argv[1:] if args is None else args)
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(_help())
        return
    if argv[0] == "--version":
        sys.stdout.write(f"medmtl {__version__}\n")
        return
    with reported():
        if argv[0] not in COMMANDS:
            raise ConfigError(f"there is no command {argv[0]!r}", fix=f"use one of: {', '.join(COMMANDS)}")
        COMMANDS[argv[0]][0](argv)


def _train_or_test(argv: list[str]) -> None:
    from medmtl.training.command import run_command

    run_command(argv)


def _experiment(argv: list[str]) -> None:
    from medmtl.experiment.command import run_experiment

    run_experiment(argv[1:])


def _compare(argv: list[str]) -> None:
    from medmtl.experiment.command import compare_command

    compare_command(argv[1:])


def _dashboard(argv: list[str]) -> None:
    from medmtl.experiment.dashboard import main as write_dashboard

    write_dashboard(argv[1:])


def _predict(argv: list[str]) -> None:
    from medmtl.predict.options import parse

    options = parse(argv[1:])
    from medmtl.predict.command import run_predict

    run_predict(options)


def _ood(argv: list[str]) -> None:
    from medmtl.ood_benchmark.command import run_ood

    run_ood(argv[1:])


def _data(argv: list[str]) -> None:
    from medmtl.data_tools.command import run_data

    run_data(argv[1:])


COMMANDS: dict[str, tuple[Callable[[list[str]], None], str]] = {
    "fit": (_train_or_test, "train one model on several tasks: medmtl fit --config multitask.yaml"),
    "test": (_train_or_test, "accuracy, calibration and out-of-distribution report of a run"),
    "predict": (_predict, "masks and verdicts for images: medmtl predict --run runs/multitask --input X --output DIR"),
    "calibrate": (_train_or_test, "fit how sure a trained run may be, and what it knows, anew"),
    "ood": (_ood, "detectors of foreign images compared on a run: medmtl ood --run runs/multitask"),
    "experiment": (_experiment, "dedicated, transfer and multi-task training compared; stop and start as you like"),
    "compare": (_compare, "tables, statistics and figures of an experiment, without training"),
    "dashboard": (_dashboard, "the comparison as a Weights & Biases workspace"),
    "data": (_data, "check, import or download data: medmtl data check FOLDER"),
}


def _help() -> str:
    lines = [f"  {name:<10} {summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: medmtl COMMAND [options]",
            "",
            "One segmentation network for several medical datasets, which says where it can be trusted.",
            "",
            *lines,
            "",
            "medmtl COMMAND --help lists the options of a command; medmtl --version prints the version.",
            "",
        ]
    )
