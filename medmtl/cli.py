"""The command `medmtl`, which imports what a command needs only when it is called."""

import argparse
import sys
from collections.abc import Callable, Sequence

from medmtl.errors import AGAIN, ConfigError, reported
from medmtl.startup import importing, in_utf8
from medmtl.version import __version__


def main(args: Sequence[str] | None = None) -> None:
    """Run a command.

    Args:
        args: what follows `medmtl` on the command line; taken from there if None.

    Raises:
        SystemExit: 1 after an error, 2 after wrong usage; each is one line on standard error. 3 where all was done but
            some input cannot be used, or is out-of-distribution where that was to count. 130 after Ctrl-C, 143 after a
            termination.
    """
    if args is None:
        in_utf8()
    argv = list(sys.argv[1:] if args is None else args)
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(_help())
        return
    if argv[0] == "--version":
        sys.stdout.write(f"medmtl {__version__}\n")
        return
    with reported(GO_ON.get(argv[0], AGAIN)):
        if argv[0] not in COMMANDS:
            raise ConfigError(f"there is no command {argv[0]!r}", fix=f"use one of: {', '.join(COMMANDS)}")
        if argv[0] in (*LIGHTNING, *CLASSES):
            _print_help(argv)
        COMMANDS[argv[0]][0]([argv[0], *(_spelled(argument, argv[0]) for argument in argv[1:])])


def _print_help(argv: Sequence[str]) -> None:
    """Print what `--help` or `--help.SECTION` asks for, without importing what would run the command.

    Raises:
        ConfigError: there is no such section.
        SystemExit: 0 after the help.
    """
    asked = next((word for word in argv[1:] if word in ("-h", "--help") or word.startswith("--help.")), None)
    if asked is None:
        return
    from medmtl.commands.help import help_of

    sys.stdout.write(help_of(argv[0], asked.partition(".")[2]))
    raise SystemExit(0)


def _spelled(argument: str, command: str) -> str:
    """An option as its command spells it: hyphens and underscores between words mean the same.

    Options that are arguments of a class have underscores, all others hyphens. Those with dots stay as they are.
    """
    option, sign, value = argument.partition("=")
    if not option.startswith("--") or "." in option:
        return argument
    name = option[2:].replace("_", "-")
    if command in LIGHTNING or (command in CLASSES and name not in HYPHENATED):
        name = name.replace("-", "_")
    return f"--{name}{sign}{value}"


def _train_or_test(argv: list[str]) -> None:
    with importing():
        from medmtl.training.command import run_command

    run_command(argv)


def _experiment(argv: list[str]) -> None:
    with importing():
        from medmtl.experiment.command import run_experiment

    run_experiment(argv[1:])


def _compare(argv: list[str]) -> None:
    options = _parser("compare").parse_args(argv[1:])
    with importing():
        from medmtl.experiment.command import compare

    compare(options.folder, options.level)


def _dashboard(argv: list[str]) -> None:
    options = _parser("dashboard").parse_args(argv[1:])
    with importing():
        from medmtl.experiment.dashboard import write_dashboard

    write_dashboard(options.entity, options.project, options.run, options.output)


def _completion(argv: list[str]) -> None:
    options = _parser("completion").parse_args(argv[1:])
    from medmtl.commands.completion import script

    sys.stdout.write(script(options.shell, {name: (_parser(name), text) for name, (_, text) in COMMANDS.items()}))


def _parser(command: str) -> argparse.ArgumentParser:
    """A parser with the options of a command, from where that keeps them."""
    if command == "predict":
        from medmtl.predict.options import predict_parser as made
    elif command == "export":
        from medmtl.export.options import export_parser as made
    elif command == "serve":
        from medmtl.serve.options import serve_parser as made
    elif command == "data":
        from medmtl.data_tools.command import data_parser as made
    elif command == "compare":
        from medmtl.commands.flags import compare_parser as made
    elif command == "dashboard":
        from medmtl.commands.flags import dashboard_parser as made
    elif command == "completion":
        from medmtl.commands.completion import completion_parser as made
    else:
        from medmtl.commands.help import parser_of

        return parser_of(command)
    return made()


def _predict(argv: list[str]) -> None:
    from medmtl.predict.options import parse

    options = parse(argv[1:])
    with importing():
        from medmtl.predict.command import run_predict

    run_predict(options)


def _ood(argv: list[str]) -> None:
    with importing():
        from medmtl.ood_benchmark.command import run_ood

    run_ood(argv[1:])


def _export(argv: list[str]) -> None:
    from medmtl.export.options import parse

    options = parse(argv[1:])
    with importing():
        from medmtl.export.command import run_export

    run_export(options)


def _serve(argv: list[str]) -> None:
    from medmtl.serve.options import parse

    options = parse(argv[1:])
    with importing():
        from medmtl.serve.command import run_serve

    run_serve(options)


def _data(argv: list[str]) -> None:
    with importing():
        from medmtl.data_tools.command import run_data

    run_data(argv[1:])


# Commands whose options LightningCLI makes, and those whose options are arguments of a class but for these.
LIGHTNING = ("fit", "test", "calibrate")
CLASSES = ("ood", "experiment")
HYPHENATED = ("ckpt-path", "dry-run")

# What is said after an interruption of the commands that go on where they were.
GO_ON = {
    "predict": f"finished images are kept, {AGAIN} to go on",
    "ood": f"observed images are kept, {AGAIN} to go on",
    "experiment": f"finished training runs are kept, {AGAIN} to go on",
    "serve": f"what was kept is removed, {AGAIN} to serve",
    "calibrate": f"{AGAIN}, the checkpoint can be used as it is",
}

COMMANDS: dict[str, tuple[Callable[[list[str]], None], str]] = {
    "fit": (_train_or_test, "train one network on several tasks: medmtl fit --config multitask.yaml"),
    "test": (_train_or_test, "accuracy, calibration and out-of-distribution (OOD) report of a run"),
    "predict": (
        _predict,
        "masks and OOD verdicts for images: medmtl predict --run runs/multitask --input X --output DIR",
    ),
    "calibrate": (_train_or_test, "re-estimate post-hoc scaling and the OOD threshold of a trained run"),
    "ood": (_ood, "OOD detectors compared on a run: medmtl ood --run runs/multitask"),
    "experiment": (_experiment, "dedicated, transfer and multi-task training compared; can be stopped and continued"),
    "compare": (_compare, "tables, statistics and figures of an experiment, without training"),
    "dashboard": (_dashboard, "the comparison as a Weights & Biases workspace"),
    "export": (_export, "a run as a MONAI Bundle, ONNX, a program of torch, or safetensors, with its verdicts"),
    "serve": (_serve, "a page and an HTTP interface for scans, and a server for 3D Slicer: medmtl serve --run R"),
    "data": (_data, "check, import or download data: medmtl data check FOLDER"),
    "completion": (_completion, "let the shell complete commands and options: source <(medmtl completion bash)"),
}


def _help() -> str:
    lines = [f"  {name:<10} {summary}" for name, (_, summary) in COMMANDS.items()]
    return "\n".join(
        [
            "usage: medmtl COMMAND [options]",
            "",
            "Multi-task medical image segmentation with calibrated probabilities and out-of-distribution detection.",
            "",
            *lines,
            "",
            "medmtl COMMAND --help lists the options of a command; medmtl --version prints the version.",
            "",
        ]
    )
