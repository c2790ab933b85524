"""Options of commands that are no keys of a configuration: where a run lies, and what to do with it."""

import argparse
from pathlib import Path
from typing import NoReturn

from medmtl.errors import ConfigError

TRUST_HELP = "import and build any class that the checkpoint names, which runs its code: for files of known origin"


class OneLineParser(argparse.ArgumentParser):
    """A parser that raises errors, which `medmtl` prints as one line."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the options, and where the help is."""
        raise ConfigError(message, fix=f"see `{self.prog} --help`")


def flags_of(command: str) -> argparse.ArgumentParser:
    """A parser of these options alone, which leaves all others; its actions are also those of the help.

    Args:
        command: `fit`, `test`, `calibrate`, `ood` or `experiment`.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    if command == "experiment":
        parser.add_argument("-c", "--config", metavar="FILE", help="a file, or the bare name of a shipped one")
        parser.add_argument("--run", metavar="FOLDER", help="its folder, or in a configuration its name")
        parser.add_argument("--dry-run", action="store_true", help="write the configurations, list them and stop")
        parser.add_argument("--trust", action="store_true", help=f"without --config: {TRUST_HELP}")
        return parser
    if command == "ood":
        parser.add_argument("-c", "--config", metavar="FILE", help="a file, or the name of a shipped benchmark")
    else:
        parser.add_argument(
            "-c",
            "--config",
            action="append",
            default=[],
            metavar="FILE",
            help="a file, or the bare name of a shipped one; given again, the later file has precedence",
        )
    run = "folder to train into (default: the next free one)" if command == "fit" else "run folder: runs/multitask"
    parser.add_argument("--run", metavar="FOLDER", help=run)
    fit = command == "fit"
    checkpoint = "checkpoint to go on from" if fit else "checkpoint, if not the best of the run"
    parser.add_argument("--ckpt-path", "--ckpt_path", metavar="FILE", help=checkpoint)
    if command != "ood":  # `test` and `calibrate` say where they belong
        resume, overwrite = "go on with the training in --run", "replace the run in --run"
        parser.add_argument("--resume", action="store_true", help=resume if fit else argparse.SUPPRESS)
        parser.add_argument("--overwrite", action="store_true", help=overwrite if fit else argparse.SUPPRESS)
    parser.add_argument("--trust", action="store_true", help=f"with --resume: {TRUST_HELP}" if fit else TRUST_HELP)
    return parser


def compare_parser() -> argparse.ArgumentParser:
    """The options of `medmtl compare`."""
    parser = argparse.ArgumentParser(
        prog="medmtl compare",
        description="Tables, statistics, figures and one page of an experiment's finished runs, into FOLDER/compare; "
        "nothing is trained.",
        epilog="example: medmtl compare runs/experiment",
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="the experiment, such as runs/experiment")
    parser.add_argument("--level", type=float, default=0.05, help="level of the tests (default: 0.05)")
    return parser


def dashboard_parser() -> argparse.ArgumentParser:
    """The options of `medmtl dashboard`."""
    parser = argparse.ArgumentParser(
        prog="medmtl dashboard",
        description="Create or update the W&B workspace that compares the arms of an experiment. Without a server it "
        "is written to a file, with what to do to publish it.",
        epilog="example: medmtl dashboard --entity ME --project medmtl --run runs/experiment",
    )
    parser.add_argument("--entity", required=True, help="user or team of W&B")
    parser.add_argument("--project", required=True, help="its project")
    parser.add_argument("--run", type=Path, help="experiment (default: runs/experiment, or any runs of the project)")
    parser.add_argument(
        "--output", type=Path, help="file of the description (default: dashboard.json in the experiment)"
    )
    return parser
